"""A route as FastAPI documents it and as we run it: FastAPI reads the signature, the call skips its dependency machinery.

That machinery costs 25-40 us a request; reading, validating and answering here costs 10.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service.admission import parse, read_body, read_form, time_limit
from service.answers import Answer
from service.call import Call
from service.multipart import MEDIA, is_form
from service.settings import Settings
from service.watch import Watch

Handler: TypeAlias = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Frame:
    """What every operation of an application shares."""

    settings: Settings
    watch: Watch


class Operation(APIRoute):
    """`handler(call, body)` for routes that take a JSON body, `handler(call)` for the others.

    `body` is a pydantic model, from its annotation; a field `timeout` of it shortens the request's time. `forms`: the body
    may be multipart/form-data as well. `read` makes an object of JSON.
    """

    def __init__(
        self,
        frame: Frame,
        path: str,
        handler: Handler,
        method: str,
        *,
        forms: bool = False,
        read: Callable[[bytes], dict[str, Any]] = parse,
        **documented: Any,
    ) -> None:
        self._body: type[BaseModel] | None = get_type_hints(handler).get("body")
        if forms and self._body is not None:
            extra = documented.get("openapi_extra", {})
            documented["openapi_extra"] = {**extra, "requestBody": _form(self._body)}
        super().__init__(path, handler, methods=[method], **documented)
        self.allowed = {method}  # at this path; `share_methods` adds the others'
        self._forms = forms
        self._read = read
        self._frame = frame
        self._handler = handler
        self.app = self._serve

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's hook, also for a method that this path does not take."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(self.allowed)})
        await self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - an ASGI signature
        call = Call.of(scope)
        settings = self._frame.settings
        if self._body is None:
            call.timeout_seconds = time_limit(call, None, settings)
            with self._frame.watch.over(call, call.timeout_seconds):
                await (await self._handler(call)).write(call)
            return
        if self._forms and is_form(call.fields.get(b"content-type", b"")):
            # Numbers are text in a form: for once they are read from it.
            body = self._body.model_validate(await read_form(call, settings), strict=False)
        else:
            body = self._body.model_validate(self._read(await read_body(call, settings)))
        call.timeout_seconds = time_limit(call, getattr(body, "timeout", None), settings)
        with self._frame.watch.over(call, call.timeout_seconds):
            await (await self._handler(call, body)).write(call)


def share_methods(operations: Iterable[Operation]) -> None:
    """Tell operations at one path of each other: who asks with another method is told all."""
    allowed: dict[str, set[str]] = {}
    for each in operations:
        together = allowed.setdefault(each.path, set())
        together |= each.allowed
        each.allowed = together


def _form(body: type[BaseModel]) -> dict[str, Any]:
    """How a form with the fields of this model is documented, beside the JSON that FastAPI documents."""
    return {"content": {MEDIA: {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}}
