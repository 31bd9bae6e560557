"""The outermost layer on Ray Serve: what Ray reads from headers, and what Ray itself answers.

Takes the place of Ray's request-id middleware, in front of everything Ray does with a request: in a replica, and in
Ray's proxy as well, where a request comes through it. Plain ASGI, no Ray.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.errors import DeadlineExceeded, QueueFull, ServingError, Unavailable
from service.call import new_id
from service.errors import BUG, ROUTING, Problem, problem_of

Header = tuple[bytes, bytes]

# With these a client could switch Ray's limits off, or choose a replica.
CONTROL: Final = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"serve-multiplexed-model-id",
    }
)
# We look after clients that leave ourselves (`service.watch`): Ray's own watch costs two tasks and a queue a request.
WATCHED: Final = (b"x-request-disconnect-disabled", b"?1")
CLIENT_ID: Final = b"x-client-request-id"
FAILURES: Final[dict[int, ServingError]] = {
    408: DeadlineExceeded("The request's time limit passed."),
    429: QueueFull("The waiting line is full."),
    503: Unavailable("No replica can answer now."),
}


class Edge:
    """Wraps what Ray Serve listens with."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through; answers that are not ours become JSON."""
        if scope["type"] == "http":
            # Ray's proxy takes no request without an id.
            scope["headers"] = [*cleaned(scope["headers"]), WATCHED, (b"x-request-id", new_id().encode())]
            send = _Rewriter(send).send
        await self._app(scope, receive, send)


def cleaned(headers: Iterable[Header]) -> list[Header]:
    """Headers without those meant for Ray and those Ray cannot decode; a client's id under its own name."""
    kept: list[Header] = []
    theirs = None
    for name, value in headers:
        if name == b"x-request-id":  # Ray takes this for its own and lets two requests share it
            theirs = value
        elif name.replace(b"_", b"-") not in CONTROL and _decodable(name) and _decodable(value):
            kept.append((name, value))
    if theirs is not None and _decodable(theirs) and all(name != CLIENT_ID for name, _ in kept):
        kept.append((CLIENT_ID, theirs))
    return kept


def _decodable(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Rewriter:
    """Sends the messages of one answer. Ray's own errors are plain text: they keep their status and get our body.

    An answer whose length is known goes out in one write: head and body apart are two system calls, and wake whoever
    reads them (HAProxy, then the client) twice, which at these sizes costs as much as the rest of the answer.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._problem: Problem | None = None
        self._head: Message | None = None

    async def send(self, message: Message) -> None:
        """ASGI `send` for everything behind the edge."""
        if message["type"] == "http.response.start" and _has_length(message):
            self._head = message
        elif self._head is not None:
            head, self._head = self._head, None
            await self._together(head, message)
        else:
            await self._rewritten(message)

    async def _together(self, head: Message, body: Message) -> None:
        # uvicorn keeps the connection's transport in the object whose method `send` is; elsewhere nothing is joined.
        cycle = getattr(self._send, "__self__", None)
        transport = getattr(cycle, "transport", None)
        if cycle is None or transport is None:
            await self._rewritten(head)
            await self._rewritten(body)
            return
        cork = cycle.transport = _Cork(transport)
        try:
            await self._rewritten(head)
            await self._rewritten(body)
        finally:
            cycle.transport = transport
            cork.pull()

    async def _rewritten(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_text_error(message):
            self._problem = _problem(message["status"])
            message = _start(self._problem, message["headers"])
        elif self._problem is not None:
            if message.get("more_body", False):
                return
            message = {"type": "http.response.body", "body": self._problem.body()}
        await self._send(message)


class _Cork:
    """Stands in for a transport and keeps what is written until it is pulled."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: list[bytes] = []
        self._close = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep it."""
        self._pieces.append(data)

    def close(self) -> None:
        """Remember it: what was kept goes first."""
        self._close = True

    def pull(self) -> None:
        """Write everything kept at once."""
        if self._pieces and not self._transport.is_closing():
            self._transport.write(b"".join(self._pieces))
        if self._close:
            self._transport.close()


def _has_length(start: Message) -> bool:
    return any(name.lower() == b"content-length" for name, _ in start["headers"])


def _start(problem: Problem, said: Iterable[Header]) -> Message:
    ours = {name.encode(): value.encode() for name, value in problem.headers.items()}
    # How long to wait is for Ray to say, where it says so.
    ours.update((b"retry-after", value) for name, value in said if name.lower() == b"retry-after")
    length = b"%d" % len(problem.body())
    fixed = [(b"content-type", b"application/json"), (b"content-length", length)]
    headers = [*fixed, (b"x-request-id", new_id().encode()), *ours.items()]
    return {"type": "http.response.start", "status": problem.status, "headers": headers}


def _is_text_error(start: Message) -> bool:
    return start["status"] >= HTTPStatus.BAD_REQUEST and any(
        name.lower() == b"content-type" and value.startswith(b"text/plain")
        for name, value in start["headers"]
    )


def _problem(status: int) -> Problem:
    if status in FAILURES:
        return problem_of(FAILURES[status])
    if status in ROUTING:
        return Problem(status, *ROUTING[status])
    return BUG
