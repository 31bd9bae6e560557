"""The error object of /v1."""

from typing import Literal

from service.openai.schemas.fields import Wire


class ErrorDetail(Wire):
    """What went wrong, in words, by kind and by place."""

    message: str
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "server_error",
    ]
    param: str | None
    code: str


class ErrorBody(Wire):
    """The body of every answer that is not a success, and of the event that ends a stream early."""

    error: ErrorDetail
