"""Speaks ASGI by hand: pieces of a body, bytes no HTTP client would send, and connections that close."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Scope

JSON = (b"content-type", b"application/json")


@dataclass
class Exchange:
    """One request to an app. `pieces` are sent one by one; `leave` closes the connection from outside."""

    path: str
    pieces: Sequence[bytes] = (b"",)
    method: str = "POST"
    headers: Sequence[tuple[bytes, bytes]] = (JSON,)
    root_path: str = ""
    more: bool = False  # the body never ends
    sent: list[Message] = field(default_factory=list)
    received: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    def scope(self) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.root_path + self.path,
            "raw_path": (self.root_path + self.path).encode(),
            "query_string": b"",
            "root_path": self.root_path,
            "headers": list(self.headers),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }

    async def receive(self) -> Message:
        place, self.received = self.received, self.received + 1
        if place < len(self.pieces):
            more = self.more or place < len(self.pieces) - 1
            return {"type": "http.request", "body": self.pieces[place], "more_body": more}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.wrote.set()

    async def run(self, app: ASGIApp) -> "Exchange":
        await app(self.scope(), self.receive, self.send)
        return self

    def leave(self) -> None:
        self.gone.set()

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def answer_headers(self) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def ended(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)
