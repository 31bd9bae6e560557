"""What holds for every route: ids, headers, errors, counting, addresses."""

import asyncio
import logging
import re

import httpx
import orjson
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from deployments.errors import (
    DeadlineExceeded,
    ModelFault,
    QueueFull,
    ReplicaLost,
    StepFailed,
    Unavailable,
)
from deployments.metrics import Metrics
from service.api import create_app
from service.openai.schemas.errors import ErrorBody
from service.settings import Settings
from tests.service.models import Models
from tests.service.wire import Exchange

SCORE = {"model": "mirror", "input": [{"tensor": {"data": [0.25, 0.75]}}]}
ID = re.compile(r"[0-9a-f]{32}")


def count(metrics: Metrics, model: str, route: str, status: int) -> float | None:
    labels = {"model": model, "route": route, "status": str(status)}
    return metrics.registry.get_sample_value("atelier_requests_total", labels)


# -- headers ---------------------------------------------------------------------------------------------------------


async def test_every_answer_has_an_id_of_its_own(http: httpx.AsyncClient) -> None:
    answers = [
        await http.get("/healthz"),
        await http.get("/nowhere"),
        await http.post("/healthz"),
        await http.post("/v1/anomalies", json=SCORE),
        await http.post("/v1/anomalies", content=b"{"),
        await http.post("/v1/completions", json={"model": "poet", "prompt": "a", "stream": True}),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(ID.fullmatch(one) for one in ids)
    assert len(set(ids)) == len(ids)


async def test_the_id_travels_with_the_message(http: httpx.AsyncClient, models: Models) -> None:
    answer = await http.post("/v1/anomalies", json=SCORE)
    assert models.seen[0].request_id == answer.headers["x-request-id"]


async def test_a_clients_own_id_comes_back_beside_ours(http: httpx.AsyncClient) -> None:
    answer = await http.get("/healthz", headers={"x-client-request-id": "order-66"})
    assert answer.headers["x-client-request-id"] == "order-66"
    assert ID.fullmatch(answer.headers["x-request-id"])


@pytest.mark.parametrize(
    "theirs", [b"x" * 129, b"x" * 20_000, b"\xff\xfe", b"a\x1b[31m", b"a\tb", b"a\x7f", b""]
)
async def test_an_id_that_is_not_short_printable_ascii_does_not_come_back(
    app: FastAPI, theirs: bytes
) -> None:
    exchange = await Exchange("/healthz", method="GET", headers=[(b"x-client-request-id", theirs)]).run(app)
    assert exchange.status == 200
    assert "x-client-request-id" not in exchange.answer_headers


async def test_version_and_timings_of_the_answer(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/anomalies", json=SCORE)
    assert answer.headers["x-model-version"] == "3"
    expected = 'queue;dur=1.000, model;dur=2.000, encode;dur=3.000, batch;desc="2.0"'
    assert answer.headers["server-timing"] == expected


async def test_headers_that_switch_off_ray_serves_limits_mean_nothing_here(http: httpx.AsyncClient) -> None:
    headers = {
        "x-request-timeout-seconds": "-1",
        "x-request-disconnect-disabled": "?1",
        "serve_multiplexed_model_id": "poet",
        "x-session-id": "1",
    }
    assert (await http.post("/v1/anomalies", json=SCORE, headers=headers)).status_code == 200


async def test_no_origin_is_let_in(http: httpx.AsyncClient) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = await http.options("/v1/anomalies", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (QueueFull("Full."), 429),
        (Unavailable("Away."), 503),
        (ReplicaLost("Lost."), 503),
        (DeadlineExceeded("Late."), 504),
        (ModelFault("Broken."), 500),
        (StepFailed("Failed."), 503),
        (ZeroDivisionError("in /home/secret.py"), 500),
    ],
)
async def test_failures_are_json(
    http: httpx.AsyncClient, models: Models, failure: Exception, status: int
) -> None:
    models.failure = failure
    answer = await http.post("/v1/anomalies", json=SCORE)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    ErrorBody.model_validate_json(answer.content)
    assert "secret" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert (await http.post("/v1/anomalies", json=SCORE)).status_code == 200


async def test_a_bug_is_logged_with_the_id_it_was_answered_with(
    http: httpx.AsyncClient, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.failure = ZeroDivisionError("once")
    answer = await http.post("/v1/anomalies", json=SCORE)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert answer.headers["x-request-id"] in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_panics_of_rust_code_are_no_exceptions_and_answered_all_the_same(
    http: httpx.AsyncClient, models: Models
) -> None:
    class PanicException(BaseException):
        pass

    models.failure = PanicException("in a tokenizer")
    assert (await http.post("/v1/anomalies", json=SCORE)).status_code == 500


async def test_cancellation_by_the_server_passes_and_is_counted(
    app: FastAPI, models: Models, metrics: Metrics
) -> None:
    models.delay_seconds = 60
    running = asyncio.create_task(Exchange("/v1/anomalies", [orjson.dumps(SCORE)]).run(app))
    await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert models.closed.is_set()
    assert count(metrics, "mirror", "/v1/anomalies", 499) == 1


async def test_a_client_that_leaves_cancels_its_work(app: FastAPI, models: Models, metrics: Metrics) -> None:
    models.delay_seconds = 60
    exchange = Exchange("/v1/anomalies", [orjson.dumps(SCORE)])
    running = asyncio.create_task(exchange.run(app))
    await asyncio.sleep(0.02)
    exchange.leave()
    await asyncio.wait_for(running, 1)
    assert models.closed.is_set()
    assert count(metrics, "mirror", "/v1/anomalies", 499) == 1


@pytest.mark.parametrize("where", ["body", "header"])
async def test_the_clients_time_limit(http: httpx.AsyncClient, models: Models, where: str) -> None:
    models.delay_seconds = 60
    fields = {**SCORE, "timeout": 0.05} if where == "body" else SCORE
    headers = {"x-request-timeout": "0.05"} if where == "header" else {}
    answer = await http.post("/v1/anomalies", json=fields, headers=headers)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    timeout_seconds = models.seen[0].timeout_seconds
    assert timeout_seconds is not None
    assert 0 < timeout_seconds <= 0.05


async def test_the_services_own_time_limit(models: Models, metrics: Metrics) -> None:
    models.delay_seconds = 60
    app = create_app(models, Settings(request_timeout_seconds=0.05), metrics)
    exchange = await Exchange("/v1/anomalies", [orjson.dumps({**SCORE, "timeout": 100})]).run(app)
    assert exchange.status == 504


async def test_half_an_answer_is_not_mended(models: Models, metrics: Metrics) -> None:
    app = create_app(models, Settings(), metrics)

    class Broken(Exchange):
        async def send(self, message: object) -> None:
            if len(self.sent) == 1:
                raise RuntimeError("the server broke")
            await super().send(message)  # type: ignore[arg-type]

    exchange = Broken("/healthz", method="GET")
    with pytest.raises(RuntimeError, match="the server broke"):
        await exchange.run(app)
    assert len(exchange.sent) == 1


# -- counting --------------------------------------------------------------------------------------------------------


async def test_requests_are_counted_and_timed(http: httpx.AsyncClient, metrics: Metrics) -> None:
    for _ in range(3):
        await http.post("/v1/anomalies", json=SCORE)
    await http.post("/v1/anomalies", json={**SCORE, "model": "poet"})
    await http.post("/v1/anomalies", json={**SCORE, "model": "nobody"})
    await http.post("/v1/anomalies", content=b"{", headers={"content-type": "application/json"})
    route = "/v1/anomalies"
    assert count(metrics, "mirror", route, 200) == 3
    assert count(metrics, "poet", route, 400) == 1
    assert count(metrics, "unknown", route, 404) == 1
    assert count(metrics, "", route, 400) == 1
    labels = {"model": "mirror", "route": route}
    assert metrics.registry.get_sample_value("atelier_request_seconds_count", labels) == 3
    assert 0 < (metrics.registry.get_sample_value("atelier_request_seconds_sum", labels) or 0) < 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (QueueFull("Full."), "queue_full"),
        (ReplicaLost("Lost."), "replica_lost"),
        (ModelFault("Broken."), None),
    ],
)
async def test_what_was_refused_is_counted_by_reason(
    http: httpx.AsyncClient, models: Models, metrics: Metrics, failure: Exception, reason: str | None
) -> None:
    models.failure = failure
    await http.post("/v1/anomalies", json=SCORE)
    labels = {"model": "mirror", "reason": reason or "internal"}
    expected = 1 if reason else None
    assert metrics.registry.get_sample_value("atelier_rejected_total", labels) == expected


async def test_labels_stay_few_whatever_clients_ask_for(http: httpx.AsyncClient, metrics: Metrics) -> None:
    async def series() -> int:
        return sum(len(family.samples) for family in metrics.registry.collect())

    async def ask(i: int) -> None:
        await http.get(f"/nowhere/{i}")
        await http.get(f"/v1/models/nobody-{i}")
        await http.post("/v1/anomalies", json={**SCORE, "model": f"nobody-{i}"})

    await ask(0)
    before = await series()
    for i in range(1, 50):
        await ask(i)
    assert await series() == before


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root_path", ["", "/studio"])
async def test_the_same_routes_under_the_gateway_and_under_a_host(
    app: FastAPI, metrics: Metrics, root_path: str
) -> None:
    exchange = await Exchange("/v1/anomalies", [orjson.dumps(SCORE)], root_path=root_path).run(app)
    assert exchange.status == 200
    models = await Exchange("/v1/models/mirror", method="GET", root_path=root_path).run(app)
    assert models.json["id"] == "mirror"
    assert count(metrics, "mirror", "/v1/anomalies", 200) == 1
    assert count(metrics, "mirror", "/v1/models/{id}", 200) == 1


@pytest.mark.parametrize(
    "path",
    ["/", "//v1//models", "/v1/models/", "/v1", "/v2", "/v1/models/../admin", "/v1/models/a/b", "/v1/models;a=b",
     "/V1/models", "/v1/anomalies/", "/-/routes", "/docs/", "/redoc", "/v1/models/..%2f", "/" + "x" * 65_536],
)  # fmt: skip
async def test_what_is_not_there(app: FastAPI, path: str) -> None:
    exchange = await Exchange(path, method="GET").run(app)
    assert exchange.status == 404
    ErrorBody.model_validate_json(exchange.body)
    assert len(exchange.body) < 2048


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("GET", "/v1/anomalies", "POST"),
    ("DELETE", "/v1/models/poet", "GET"),
    ("PUT", "/v1/models", "GET"),
    ("POST", "/metrics", "GET"),
    ("OPTIONS", "/v1/completions", "POST"),
    ("BREW", "/healthz", "GET"),
])  # fmt: skip
async def test_methods_that_a_route_does_not_take(app: FastAPI, method: str, path: str, allow: str) -> None:
    exchange = await Exchange(path, method=method).run(app)
    assert exchange.status == 405
    assert exchange.answer_headers["allow"] == allow
    assert exchange.json["error"]["code"] == "method_not_allowed"


async def test_a_host_header_does_not_move_the_route(app: FastAPI) -> None:
    for host in (b"a/v1/models?x=", b"", b"evil@atelier", b"\xff"):
        exchange = await Exchange("/healthz", method="GET", headers=[(b"host", host)]).run(app)
        assert exchange.json == {"status": "ok"}


async def test_lifespan_and_websockets_are_the_routers(app: FastAPI) -> None:
    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, str]:
        return next(messages)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
    sent.clear()
    scope = {
        "type": "websocket",
        "path": "/v1/completions",
        "headers": [],
        "query_string": b"",
        "subprotocols": [],
    }
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]  # type: ignore[index]


async def test_two_applications_share_nothing(models: Models) -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    await Exchange("/healthz", method="GET").run(create_app(models, Settings(), first))
    assert count(first, "", "/healthz", 200) == 1
    assert count(second, "", "/healthz", 200) is None
