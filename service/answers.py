"""What a route hands back, and how it is written. Knows no model."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import orjson

from service.call import Call

P = ParamSpec("P")
T = TypeVar("T")

JSON = b"application/json"
# Bytes of numbers that are written in less time than another thread takes to begin.
LARGE: Final = 65_536


class Answer(Protocol):
    """Something that can be written to the caller."""

    async def write(self, call: Call) -> None:
        """Write the whole answer. A failure after its start is the door's to end."""


@dataclass(frozen=True, slots=True)
class Document:
    """A complete body."""

    body: bytes
    media_type: bytes = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def write(self, call: Call) -> None:
        """Two ASGI messages."""
        headers = [
            (b"content-type", self.media_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]
        await call.reply({"type": "http.response.start", "status": self.status, "headers": headers})
        await call.reply({"type": "http.response.body", "body": self.body})


async def beside(size: int, write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make an answer of about `size` bytes: a large one on a thread, so that others need not wait for it."""
    if size <= LARGE:
        return write(*args, **kwargs)
    return await asyncio.to_thread(write, *args, **kwargs)


def json_answer(fields: dict[str, Any]) -> Document:
    """A JSON object. Arrays are lists, each number as short as its own precision allows."""
    return Document(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
