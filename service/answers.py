"""What a route hands back, and how it is written. Knows no model."""

from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from service.call import Call

JSON = b"application/json"


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


def json_answer(fields: dict[str, Any]) -> Document:
    """A JSON object."""
    return Document(orjson.dumps(fields))
