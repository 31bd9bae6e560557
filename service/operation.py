"""A route as FastAPI documents it and as we run it: FastAPI reads the signature, the call skips its dependency machinery.

That machinery costs 25-40 us a request; reading, validating and answering here costs 10.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from service.admission import read_object, time_limit
from service.answers import Answer
from service.call import Call
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

    `body` is a pydantic model, from its annotation; a field `timeout` of it shortens the request's time.
    """

    def __init__(self, frame: Frame, path: str, handler: Handler, method: str, **documented: Any) -> None:
        super().__init__(path, handler, methods=[method], **documented)
        self._frame = frame
        self._handler = handler
        self._body: type[BaseModel] | None = get_type_hints(handler).get("body")
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - an ASGI signature
        call = Call.of(scope)
        settings = self._frame.settings
        if self._body is None:
            call.timeout_seconds = time_limit(call, None, settings)
            with self._frame.watch.over(call, call.timeout_seconds):
                await (await self._handler(call)).write(call)
            return
        body = self._body.model_validate(await read_object(call, settings))
        call.timeout_seconds = time_limit(call, getattr(body, "timeout", None), settings)
        with self._frame.watch.over(call, call.timeout_seconds):
            await (await self._handler(call, body)).write(call)
