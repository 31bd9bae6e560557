"""One kept-alive HTTP connection that posts JSON to one address, as cheaply as Python can: a benchmark's client shares the
cores of what it measures. Knows no model."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

_LENGTH: Final = b"content-length:"


class AnswerError(Exception):
    """The server did not answer as it should have."""


class Connection:
    """Opened with its first request. One request at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._at = (parts.hostname, parts.port)
        self._path = parts.path or "/"
        self._pipes: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def begin(self, fields: Mapping[str, Any]) -> asyncio.StreamReader:
        """Post, and read no more than that the answer is 200. Raises AnswerError."""
        if self._pipes is None:
            self._pipes = await asyncio.open_connection(*self._at, limit=1 << 24)
        reader, writer = self._pipes
        body = json.dumps(fields).encode()
        head = f"POST {self._path} HTTP/1.1\r\nhost: benchmark\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise AnswerError(f"{status!r} {(await reader.read(2000))!r}")
        return reader

    async def post(self, fields: Mapping[str, Any]) -> bytes:
        """The whole body of an answer that says its length. Raises AnswerError."""
        reader = await self.begin(fields)
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH)]
        if not lengths:
            raise AnswerError(f"the answer does not say its length: {head!r}")
        return await reader.readexactly(int(lengths[0].removeprefix(_LENGTH)))

    def close(self) -> None:
        """Close the connection."""
        if self._pipes is not None:
            self._pipes[1].close()
