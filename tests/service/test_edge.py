from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.edge import WATCHED, Edge, cleaned
from service.openai.schemas.errors import ErrorBody
from tests.service.wire import Exchange


def answering(status: int, headers: Sequence[Any], *bodies: bytes) -> ASGIApp:
    """An app that answers as Ray Serve does: headers as lists, a body in one piece or several."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for place, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": place < len(bodies)})

    return app


TEXT = [b"content-type", b"text/plain; charset=utf-8"]


@pytest.mark.parametrize(
    ("status", "becomes", "code", "retry_after"),
    [
        (404, 404, "not_found", None),
        (405, 405, "method_not_allowed", None),
        (408, 504, "deadline_exceeded", None),
        (429, 429, "queue_full", "1"),
        (500, 500, "internal", None),
        (503, 503, "unavailable", "1"),
    ],
)
async def test_what_ray_says_in_text_is_said_in_json(
    status: int, becomes: int, code: str, retry_after: str | None
) -> None:
    app = Edge(answering(status, [TEXT], b"Path '/x' not found: ", b"Actor 0123 on node 4567 died"))
    exchange = await Exchange("/x").run(app)
    assert exchange.status == becomes
    assert ErrorBody.model_validate_json(exchange.body).error.code == code
    assert exchange.answer_headers["content-type"] == "application/json"
    assert int(exchange.answer_headers["content-length"]) == len(exchange.body)
    assert len(exchange.answer_headers["x-request-id"]) == 32
    assert exchange.answer_headers.get("retry-after") == retry_after
    assert exchange.ended


async def test_rays_own_word_on_when_to_come_back_stays() -> None:
    exchange = await Exchange("/").run(Edge(answering(429, [TEXT, [b"Retry-After", b"7"]], b"full")))
    assert exchange.answer_headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, b"text/plain", b"success"),
        (404, b"application/json", b"{}"),
        (200, b"text/event-stream", b"data: 1\n\n"),
    ],
)
async def test_everything_else_passes_as_it_is(status: int, kind: bytes, body: bytes) -> None:
    exchange = await Exchange("/").run(Edge(answering(status, [(b"content-type", kind)], body[:2], body[2:])))
    assert exchange.status == status
    assert exchange.body == body
    assert exchange.answer_headers == {"content-type": kind.decode()}
    assert len(exchange.sent) == 3


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"x-session-id",
    ],
)
def test_clients_do_not_steer_ray(name: bytes) -> None:
    assert cleaned([(name, b"1"), (b"host", b"a")]) == [(b"host", b"a")]


def test_a_clients_id_goes_by_its_own_name() -> None:
    assert cleaned([(b"x-request-id", b"a")]) == [(b"x-client-request-id", b"a")]
    both = [(b"x-request-id", b"a"), (b"x-client-request-id", b"b")]
    assert cleaned(both) == [(b"x-client-request-id", b"b")]


def test_what_cannot_be_decoded_is_not_passed_on() -> None:
    assert cleaned([(b"x-request-id", b"\xff"), (b"traceparent", b"\xfe"), (b"\xff", b"1")]) == []
    assert cleaned([(b"x-name", "Zoë".encode())]) == [(b"x-name", "Zoë".encode())]


async def test_the_app_sees_the_cleaned_headers() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        await answering(200, [], b"{}")(scope, receive, send)

    exchange = await Exchange("/", headers=[(b"x-request-timeout-seconds", b"0"), (b"host", b"a")]).run(
        Edge(app)
    )
    assert orjson.loads(exchange.body) == {}
    *kept, (name, value) = seen[0]["headers"]
    assert kept == [(b"host", b"a"), WATCHED]
    assert (name, len(value)) == (b"x-request-id", 32)


async def test_lifespan_passes_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    exchange = Exchange("/")
    await Edge(app)({"type": "lifespan"}, exchange.receive, exchange.send)
    assert seen == ["lifespan"]
