"""Server-sent events from bytes as the network cut them. Knows no JSON and no clock.

The fields this reads are `data:`; comments and other fields change nothing for a load test.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""


class EventReader:
    """Collects chunks into events. An event is complete at its blank line; what follows it waits for the next chunk."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._after_return = False  # the last chunk ended in CR: an LF that opens the next one belongs to it

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take one chunk and return the data of every event it completes, in order."""
        if self._after_return and chunk:
            self._after_return = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._after_return = chunk.endswith(b"\r")
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = b"" if chunk.endswith((b"\r", b"\n")) else lines.pop()
        return [event for line in lines if (event := self._read(line.rstrip(b"\r\n"))) is not None]

    def _read(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data.clear()
            return event
        return None
