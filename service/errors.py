"""What every failure looks like from outside: one table from exception to status, type and code.

Knows no route and no model. Bodies are OpenAI's error object, at most 2 kB, and carry no traceback, path or class name.

Refusal                 the door's own refusals, before any work
|-- TooLarge            413
|-- UnsupportedMedia    415
`-- SlowBody            400, the body did not arrive in time
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from deployments.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    ModelFault,
    ModelNotFound,
    QueueFull,
    ServingError,
    StepFailed,
    Unavailable,
)

# Bytes. JSON at most doubles them (quotes, backslashes), so that a body stays below 2 kB.
MAX_MESSAGE: Final = 700
MAX_PARAM: Final = 160


class Refusal(ServingError):
    """The door does not let the request in."""

    code = "invalid_value"


class TooLarge(Refusal):
    """The body is larger than the service takes."""

    code = "body_too_large"


class UnsupportedMedia(Refusal):
    """The body's content type or encoding is not one the service reads."""

    code = "unsupported_media_type"


class SlowBody(Refusal):
    """The body did not arrive in time, or arrived in too many pieces."""

    code = "body_too_slow"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of failure is answered. `retry_after_seconds` None: trying again will not help."""

    status: int
    type: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure, ready to be written."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """The JSON error object."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


INVALID: Final = "invalid_request_error"

KINDS: Final[Mapping[type[ServingError], Kind]] = {
    BadRequest: Kind(400, INVALID),
    SlowBody: Kind(400, INVALID),
    ModelNotFound: Kind(404, "not_found_error"),
    TooLarge: Kind(413, INVALID),
    UnsupportedMedia: Kind(415, INVALID),
    QueueFull: Kind(429, "rate_limit_error", retry_after_seconds=1),
    Cancelled: Kind(499, INVALID),
    ModelFault: Kind(500, "server_error"),
    StepFailed: Kind(503, "server_error", retry_after_seconds=1),
    Unavailable: Kind(503, "server_error", retry_after_seconds=1),  # ReplicaLost as well
    DeadlineExceeded: Kind(504, "server_error"),
}

# What Starlette's router raises, and how it reads in our words.
ROUTING: Final[Mapping[int, tuple[str, str, str]]] = {
    404: ("not_found_error", "not_found", "There is nothing at this address."),
    405: (INVALID, "method_not_allowed", "This address does not take that method."),
}

BUG: Final = Problem(
    500,
    "server_error",
    "internal",
    "Something went wrong on our side. Quote the x-request-id when you report it.",
)

# Kinds of validation error that have a code of their own; the rest is a wrong type or a wrong value.
CODES: Final[Mapping[str, str]] = {
    "extra_forbidden": "unknown_parameter",
    "unknown_parameter": "unknown_parameter",
    "missing": "missing_required_parameter",
    "context_length_exceeded": "context_length_exceeded",
}
OBJECTS: Final = frozenset({"model_type", "model_attributes_type", "dict_type", "dataclass_type"})


def problem_of(error: BaseException) -> Problem:
    """How this failure is answered. Whatever the table does not know is a bug, and told nothing about."""
    if isinstance(error, ServingError):
        return _serving(error)
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _routing(error)
    return BUG


def _serving(error: ServingError) -> Problem:
    kind = next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), None)
    if kind is None:
        return BUG
    seconds = kind.retry_after_seconds
    if seconds is not None and error.retry_after_seconds is not None:
        seconds = error.retry_after_seconds
    headers = {} if seconds is None else {"retry-after": str(max(1, math.ceil(seconds)))}
    if isinstance(error, Refusal):
        headers["connection"] = "close"  # what is left of the body is not read
    return Problem(
        kind.status, kind.type, error.code, clean(error.message, MAX_MESSAGE), _param(error.param), headers
    )


def _routing(error: HTTPException) -> Problem:
    status = error.status_code
    kind, code, message = ROUTING.get(status, (INVALID, "invalid_request", f"{HTTPStatus(status).phrase}."))
    # The methods a route takes come out of a set; sorted, the answer is the same each time.
    allow = {
        key.lower(): ", ".join(sorted(value.split(", "))) for key, value in (error.headers or {}).items()
    }
    return Problem(status, kind, code, message, headers=allow)


def _invalid(error: ValidationError) -> Problem:
    """The first thing wrong with a body, with its place as the client would write it: `input[1].image`."""
    first = error.errors(include_url=False, include_input=False)[0]
    # The end of an unknown field's place is the client's own word, whatever it looks like.
    place = place_of(first["loc"], words=1 if first["type"] == "extra_forbidden" else 0)
    code = CODES.get(first["type"], "invalid_type" if first["type"].endswith("_type") else "invalid_value")
    return Problem(400, INVALID, code, clean(_sentence(first, place), MAX_MESSAGE), _param(place))


def _sentence(detail: ErrorDetails, place: str | None) -> str:
    where = f"'{clean(place, MAX_PARAM)}'" if place else "the body"
    match detail["type"]:
        case "extra_forbidden":
            return f"Unknown parameter: {where}."
        case "missing":
            return f"Missing required parameter: {where}."
        case kind if kind in OBJECTS:
            return f"Invalid {where}: expected an object."
    text = detail["msg"].replace(" after validation", "")  # pydantic's word on lists
    return f"Invalid {where}: {text[:1].lower()}{text[1:].rstrip('.')}."


def place_of(parts: Sequence[int | str], words: int = 0) -> str | None:
    """`("input", 1, "image")` as `input[1].image`.

    Parts in angle brackets name a union's branch, `[key]` an object's key as such: no places. The last `words` parts are
    taken as they are.
    """
    place = ""
    for count, part in enumerate(parts, 1):
        if isinstance(part, int):
            place += f"[{part}]"
        elif not (part.startswith("<") or part == "[key]") or count > len(parts) - words:
            place += f".{part}" if place else part
    return place or None


def _param(place: str | None) -> str | None:
    return None if place is None else clean(place, MAX_PARAM)


def clean(text: str, limit: int) -> str:
    """At most `limit` bytes of printable text: what a client sent may be echoed, but not at any length or with escapes."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[:limit])
    return printable.encode()[:limit].decode(errors="ignore")
