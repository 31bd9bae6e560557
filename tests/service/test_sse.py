import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from deployments.errors import ModelFault, QueueFull, ReplicaLost
from deployments.metrics import Metrics
from service.call import Call
from service.openai.schemas.errors import ErrorBody
from service.sse import DONE, Events, event
from tests.service.models import Models
from tests.service.wire import Exchange

STREAM = {"model": "poet", "prompt": "a", "max_tokens": 4, "seed": 1, "stream": True}


def events(body: bytes) -> list[Any]:
    """What a reader of the stream sees; the last part is what stands after the last event: nothing."""
    *parts, rest = body.split(b"\n\n")
    assert rest == b""
    return [part if part == DONE.strip() else orjson.loads(part.removeprefix(b"data: ")) for part in parts]


async def test_events_then_done() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[list[dict[str, Any]], None]:
        try:
            for i in range(3):
                yield [{"i": i}]
        finally:
            closed.set()

    exchange = Exchange("/")
    await Events(source()).write(Call(exchange.scope(), exchange.receive, exchange.send))
    assert exchange.status == 200
    assert exchange.answer_headers["content-type"] == "text/event-stream; charset=utf-8"
    assert exchange.answer_headers["cache-control"] == "no-store"
    assert events(exchange.body) == [{"i": 0}, {"i": 1}, {"i": 2}, b"data: [DONE]"]
    assert exchange.ended
    assert closed.is_set()


@examples(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), st.text() | st.integers(-9, 9)))
def test_an_event_is_one_line_whatever_is_in_it(fields: dict[str, Any]) -> None:
    written = event(fields)
    assert written.count(b"\n") == 2
    assert events(written) == [fields]


async def test_each_event_is_sent_as_it_comes(app: FastAPI, models: Models) -> None:
    models.delay_seconds = 0.01
    exchange = await Exchange("/v1/completions", [orjson.dumps(STREAM)]).run(app)
    chunks = [message["body"] for message in exchange.sent[1:]]
    assert [chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks] == [True] * 5
    assert chunks[-1] == DONE


async def test_a_failure_before_the_first_event_is_an_ordinary_error(
    http: httpx.AsyncClient, models: Models
) -> None:
    models.failure = QueueFull("The line is full.", retry_after_seconds=2)
    answer = await http.post("/v1/completions", json=STREAM)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("failure", "code", "status"),
    [
        (ReplicaLost("The replica was lost."), "replica_lost", "503"),
        (ModelFault("The model failed."), "internal", "500"),
        (RuntimeError("/secret/path"), "internal", "500"),
    ],
)
async def test_a_later_failure_is_an_event_and_a_clean_end(
    http: httpx.AsyncClient, models: Models, metrics: Metrics, failure: Exception, code: str, status: str
) -> None:
    models.failure, models.fails_after = failure, 2
    answer = await http.post("/v1/completions", json=STREAM)
    assert answer.status_code == 200
    *texts, error = events(answer.content)
    assert len(texts) == 2
    assert ErrorBody.model_validate(error).error.code == code
    assert "secret" not in answer.text
    assert "[DONE]" not in answer.text
    labels = {"model": "poet", "route": "/v1/completions", "status": status}
    assert metrics.registry.get_sample_value("atelier_requests_total", labels) == 1
    assert models.open_streams == 0


async def test_the_deadline_ends_a_stream(http: httpx.AsyncClient, models: Models) -> None:
    models.delay_seconds = 0.15
    answer = await http.post("/v1/completions", json={**STREAM, "timeout": 0.25})
    *_, error = events(answer.content)
    assert error["error"]["code"] == "deadline_exceeded"
    assert models.open_streams == 0


async def test_a_client_that_leaves_ends_the_stream(app: FastAPI, models: Models, metrics: Metrics) -> None:
    models.delay_seconds = 0.02
    exchange = Exchange("/v1/completions", [orjson.dumps({**STREAM, "max_tokens": 60})])
    running = asyncio.create_task(exchange.run(app))
    await exchange.wrote.wait()
    assert models.open_streams == 1
    exchange.leave()
    await asyncio.wait_for(running, 1)
    assert models.open_streams == 0
    assert len(exchange.sent) < 30
    labels = {"model": "poet", "route": "/v1/completions", "status": "499"}
    assert metrics.registry.get_sample_value("atelier_requests_total", labels) == 1


async def test_a_connection_that_breaks_while_we_write_is_a_client_that_left(
    app: FastAPI, models: Models, metrics: Metrics
) -> None:
    class Broken(Exchange):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if len(self.sent) > 2:
                raise OSError("closed")

    await Broken("/v1/completions", [orjson.dumps(STREAM)]).run(app)
    labels = {"model": "poet", "route": "/v1/completions", "status": "499"}
    assert metrics.registry.get_sample_value("atelier_requests_total", labels) == 1
    assert models.open_streams == 0


async def test_a_reader_that_does_not_read_holds_the_source_back(app: FastAPI, models: Models) -> None:
    may_write = asyncio.Semaphore(3)

    class Slow(Exchange):
        async def send(self, message: Any) -> None:
            await may_write.acquire()
            await super().send(message)

    exchange = Slow("/v1/completions", [orjson.dumps({**STREAM, "max_tokens": 60})])
    running = asyncio.create_task(exchange.run(app))
    await asyncio.sleep(0.05)
    assert len(exchange.sent) == 3
    assert models.open_streams == 1
    for _ in range(100):
        may_write.release()
    await running
    assert exchange.ended


async def test_a_reader_that_falls_behind_gets_more_in_each_event(app: FastAPI, models: Models) -> None:
    may_write = asyncio.Semaphore(3)  # the head, the first two events

    class Slow(Exchange):
        async def send(self, message: Any) -> None:
            await may_write.acquire()
            await super().send(message)

    exchange = Slow("/v1/completions", [orjson.dumps({**STREAM, "n": 2, "max_tokens": 12, "logprobs": 0})])
    running = asyncio.create_task(exchange.run(app))
    await asyncio.sleep(0.05)
    for _ in range(100):
        may_write.release()
    await running
    *sent, done = events(exchange.body)
    assert done == b"data: [DONE]"
    choices = [choice for one in sent for choice in one["choices"]]
    assert len(choices) < 10  # of 24 tokens
    for row in range(2):
        parts = [choice for choice in choices if choice["index"] == row]
        assert "".join(part["text"] for part in parts) == "".join(f"{1 + row + k} " for k in range(12))
        assert [token for part in parts for token in part["logprobs"]["tokens"]] == [
            f"{1 + row + k} " for k in range(12)
        ]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["length"]


async def test_a_reader_that_keeps_up_gets_every_token_alone(app: FastAPI, models: Models) -> None:
    models.delay_seconds = 0.002
    exchange = await Exchange("/v1/completions", [orjson.dumps({**STREAM, "max_tokens": 20})]).run(app)
    assert len(events(exchange.body)) == 21
