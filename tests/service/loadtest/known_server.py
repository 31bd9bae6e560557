"""A real server whose answers and delays a test decides."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Handler = Callable[[dict[str, Any]], Awaitable[Response]]

CARDS: list[dict[str, Any]] = [
    {"id": "gpt", "version": "3", "capabilities": ["complete"], "limits": {"context": 256}},
    {
        "id": "ae",
        "version": "1",
        "capabilities": ["reconstruct", "score"],
        "limits": {"input_shape": [1, 4, 4]},
    },
    {"id": "gan", "version": "1", "capabilities": ["generate_image"], "limits": {"classes": ["Bag", "Coat"]}},
    {"id": "shapeless", "version": "1", "capabilities": ["score"], "limits": {}},
]


def chunk(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'text': text}]})}\n\n"


def usage(prompt: int, completion: int) -> str:
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion}
    return f"data: {json.dumps({'choices': [], 'usage': tokens})}\n\n"


DONE = "data: [DONE]\n\n"


def stream(*parts: str | float) -> StreamingResponse:
    """Send strings, wait numbers (seconds)."""

    async def body() -> Any:
        for part in parts:
            if isinstance(part, str):
                yield part
            else:
                await asyncio.sleep(part)

    return StreamingResponse(body(), media_type="text/event-stream")


def refusal(status: int, code: str) -> Response:
    return JSONResponse({"error": {"message": "no", "type": "t", "param": None, "code": code}}, status)


@dataclass
class Server:
    """What it answers may be replaced by a test; what it was asked is kept."""

    url: str = ""
    cards: list[dict[str, Any]] | None = field(default_factory=lambda: list(CARDS))
    delay: float = 0.0
    handler: Handler | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    live: int = 0
    most_live: int = 0

    def wait_for(self, count: int) -> None:
        """Until so many requests have arrived."""
        deadline = time.monotonic() + 20
        while len(self.bodies) < count:
            assert time.monotonic() < deadline, f"{len(self.bodies)} of {count} requests"
            time.sleep(0.01)

    async def models(self, request: Request) -> Response:
        if self.cards is None:
            return Response("not here", 404)
        return JSONResponse({"object": "list", "data": self.cards})

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        try:
            await asyncio.sleep(self.delay)
            if self.handler is not None:
                return await self.handler(body)
            return self._default(request.url.path, body)
        finally:
            self.live -= 1

    def _default(self, path: str, body: dict[str, Any]) -> Response:
        if path.endswith("/completions"):
            count = body["max_tokens"]
            if body["stream"]:
                return stream(*[chunk("a")] * count, usage(5, count), DONE)
            tokens = {"prompt_tokens": 5, "completion_tokens": count}
            return JSONResponse({"choices": [{"index": 0, "text": "a" * count}], "usage": tokens})
        if path.endswith("/generations"):
            return JSONResponse({"created": 0, "data": [{"b64_json": "eA=="}] * body["n"]})
        kind = "anomaly" if path.endswith("/anomalies") else "reconstruction"
        return JSONResponse({"data": [{"index": i, "object": kind} for i in range(len(body["input"]))]})

    def app(self) -> Starlette:
        posts = ("completions", "images/generations", "anomalies", "reconstructions")
        routes = [Route("/v1/models", self.models)]
        for prefix in ("", "/studio"):
            routes += [Route(f"{prefix}/v1/{post}", self.answer, methods=["POST"]) for post in posts]
        routes.append(Route("/studio/v1/models", self.models))
        return Starlette(routes=routes)
