"""An async iterator as a stream of server-sent events. A connection that closes ends the iterator.

A failure before the first event is an ordinary error answer; a later one is an event of its own, a clean end of the
body and no `[DONE]` (the door writes it).
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.call import Call

DONE: Final = b"data: [DONE]\n\n"
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies that buffer would hold tokens back
)


@dataclass(frozen=True, slots=True)
class Events:
    """Objects that are sent as they come, each list of them in one write. Closing the generator must end its makers."""

    source: AsyncGenerator[Sequence[dict[str, Any]], None]

    async def write(self, call: Call) -> None:
        """Write every event, then `[DONE]`. Sending waits for a reader that is slow, and so does the source."""
        async with aclosing(self.source) as source:
            first = await anext(source)  # before the status: what fails here is still an ordinary error
            call.streaming = True
            await call.reply({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await call.reply(_chunk(first))
            async for events in source:
                await call.reply(_chunk(events))
        await end(call, DONE)


def event(fields: dict[str, Any]) -> bytes:
    """One event, under its name where it has a type. JSON has no line breaks of its own."""
    data = b"data: " + orjson.dumps(fields) + b"\n\n"
    return b"event: " + fields["type"].encode() + b"\n" + data if "type" in fields else data


async def end(call: Call, last: bytes) -> None:
    """The last bytes of a stream."""
    await call.reply({"type": "http.response.body", "body": last})


def _chunk(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "http.response.body", "body": b"".join(map(event, events)), "more_body": True}
