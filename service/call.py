"""One request on its way through the door: who asks, since when, and what its answer must say.

Knows no route and no model client.
"""

import time
from random import getrandbits
from typing import Final

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from deployments.errors import Cancelled
from deployments.messages import Timings

CLIENT_ID_LENGTH: Final = 128
UNKNOWN: Final = "unknown"  # stands in metrics for what clients could invent without end


def new_id() -> str:
    """Make a request's id: to tell requests apart, not to be unguessable, so without a system call."""
    return f"{getrandbits(128):032x}"


class Call(Request):
    """A Starlette request with what the door keeps beside it. Made once, found in the scope by `Call.of`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive)
        scope["atelier.call"] = self
        self.began = time.perf_counter()
        self.id = new_id()
        # One look at the headers for all who ask. Of a repeated header the last counts; servers refuse the dangerous ones.
        self.fields: dict[bytes, bytes] = dict(scope["headers"])
        self.model = ""  # the catalogue says which
        self.version = ""
        self.timings: Timings | None = None
        self.timeout_seconds = 0.0  # what is left of its time when the work begins
        self.status = 0  # of the answer, once it has started
        self.streaming = False
        self._reply = send

    @staticmethod
    def of(scope: Scope) -> "Call":
        """The call that this scope belongs to."""
        call: Call = scope["atelier.call"]
        return call

    @property
    def route(self) -> str:
        """The route's template (`/v1/models/{id}`), never the path itself."""
        route = self.scope.get("route")
        return UNKNOWN if route is None else route.path_format

    def elapsed(self) -> float:
        """Seconds since the door saw the request."""
        return time.perf_counter() - self.began

    async def reply(self, message: Message) -> None:
        """ASGI `send` for everything behind the door: adds the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._own_headers()]
        try:
            await self._reply(message)
        except OSError:  # what ASGI 2.4 servers raise for a connection that is gone
            raise Cancelled("The client left.") from None

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.id.encode())]
        theirs = self.fields.get(b"x-client-request-id")
        if theirs and len(theirs) <= CLIENT_ID_LENGTH and _printable(theirs):
            headers.append((b"x-client-request-id", theirs))
        if self.version:
            headers.append((b"x-model-version", self.version.encode()))
        if self.timings is not None:
            headers.append((b"server-timing", _server_timing(self.timings)))
        return headers


def _printable(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable()


def _server_timing(timings: Timings) -> bytes:
    """The engine's own measurements; durations in milliseconds, as the header's definition wants them."""
    parts = [f"queue;dur={timings.queue * 1e3:.3f}", f"model;dur={timings.model * 1e3:.3f}"]
    if timings.first is not None:
        parts.append(f"first;dur={timings.first * 1e3:.3f}")
    parts.append(f"encode;dur={timings.encode * 1e3:.3f}")
    parts.append(f'batch;desc="{timings.batch:.1f}"')
    return ", ".join(parts).encode()
