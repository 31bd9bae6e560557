"""Text under faults, over real sockets: clients that leave, readers that stop, steps that fail, more work than fits."""

import concurrent.futures
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments import engine as engine_module
from deployments.rows import BACKLOG
from tests import packages
from tests.e2e.conftest import Service
from tests.e2e.running import MODELS, Running, body, eventually, last_event, read, sent

CONTEXT = 2048
LONG = "x" * 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for name in MODELS:
        packages.text(folder, name=name, attention=name == "tiny-attention", context=CONTEXT)
    return folder


@pytest.fixture
def serve(store: Path) -> Iterator[Callable[..., Running]]:
    opened: list[Running] = []

    def start(**config: Any) -> Running:
        opened.append(Running(store, config))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@contextmanager
def tasks(count: int) -> Iterator[Callable[..., "concurrent.futures.Future[Any]"]]:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        yield pool.submit


# -- clients that leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("steps", "fields"),
    [
        pytest.param(3, {"prompt": LONG, "stream": True}, id="in prefill"),
        pytest.param(3, {"prompt": LONG}, id="in prefill of a whole answer"),
        pytest.param(8, {"stream": True}, id="mid-stream"),
        pytest.param(8, {"stream": True, "n": 4}, id="mid-stream of several rows"),
        pytest.param(8, {}, id="in a whole answer"),
    ],
)
def test_a_client_that_leaves_frees_its_slots_within_one_step(
    serve: Callable[..., Running], model: str, steps: int, fields: dict[str, Any]
) -> None:
    running = serve(slots=4, prefill_chunk=8)
    engine, pace = running.engine(model), running.steps[model]
    pace.hold()
    client = running.send(model, **fields)
    eventually(lambda: pace.rows)
    pace.let(steps)
    client.close()
    eventually(lambda: all(row.leaving for row in engine.scheduler.live))
    taken = len(pace.rows)
    pace.go_on()
    eventually(lambda: running.idle(model))
    assert len(pace.rows) == taken, "the step that was running was the last"
    assert running.value("cancelled_total", model) == 1
    assert running.value("slots_used", model) == 0
    running.works(model)


def test_a_client_that_leaves_the_line_never_costs_a_step(serve: Callable[..., Running]) -> None:
    running = serve(slots=1)
    pace = running.steps["tiny-text"]
    pace.hold()
    first = running.send("tiny-text", max_tokens=3)
    eventually(lambda: pace.rows)
    waiting = [running.send("tiny-text", n=3, stream=True) for _ in range(20)]
    eventually(lambda: running.value("waiting_rows", "tiny-text") == 60)
    for client in waiting:
        client.close()
    eventually(lambda: running.value("waiting_rows", "tiny-text") == 0)
    pace.go_on()
    assert b'"def"' in read(first)
    assert running.value("cancelled_total", "tiny-text") == 20
    assert len(pace.rows) <= 4
    running.works("tiny-text")


@pytest.mark.parametrize("path", ["/studio", ""])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_noticed_on_every_path(service: Service, path: str, stream: bool) -> None:
    """Through the proxy, and through proxy and gateway: well before its 1024 rows would be done."""
    fields = {"prompt": ["abc"] * 128, "n": 8, "max_tokens": 60, "stream": stream, "ignore_eos": True}
    before = scraped(service, "cancelled_total")
    address = ("127.0.0.1", service.port)
    with sent(address, f"{path}/v1/completions", body("tiny-text", **fields)):
        eventually(lambda: scraped(service, "live_rows") > 0)
    eventually(lambda: scraped(service, "live_rows") + scraped(service, "waiting_rows") == 0)
    assert scraped(service, "cancelled_total") == before + 1


def scraped(service: Service, name: str) -> float:
    """A figure of tiny-text, of all processes together."""
    lines = httpx.get(f"{service.url}/metrics", timeout=30).text.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith(f"atelier_{name}{{") and 'model="tiny-text"' in line
    )


def test_a_storm_of_clients_that_leave_at_any_moment_leaves_nothing_behind(
    serve: Callable[..., Running],
) -> None:
    running = serve(slots=8)
    running.works("tiny-attention")
    chance = random.Random(3)

    def visit() -> bool:
        stream = chance.random() < 0.7
        client = running.send(
            "tiny-attention", prompt="x" * chance.randint(1, 600), max_tokens=400, stream=stream
        )
        client.settimeout(chance.random() * 0.2)  # of a single read: a stream is left where it pauses
        try:
            read(client)
        except TimeoutError:
            client.close()
            return False
        return True

    with tasks(16) as submit:
        whole = sum(each.result() for each in [submit(visit) for _ in range(200)])
    eventually(lambda: running.idle("tiny-attention"))
    assert whole < 200
    cancelled = running.value("cancelled_total", "tiny-attention")
    answered = {"route": "/v1/completions"}
    eventually(
        lambda: (
            running.value("requests_total", "tiny-attention", status="200", **answered)
            + running.value("requests_total", "tiny-attention", status="499", **answered)
            == 201
        )
    )
    assert 0 < cancelled <= 200 - whole
    running.works("tiny-attention")


# -- readers that stop -------------------------------------------------------------------------------------------------


def test_a_reader_that_stops_is_paused_then_dropped_and_others_go_on(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than the backlog is ever computed ahead of it, of an answer of some 40 MB."""
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 1.0)
    running = serve(slots=80)
    model = "tiny-text"
    running.works(model)
    before = psutil.Process().memory_info().rss
    slow = running.send(
        model, receive_bytes=4096, stream=True, prompt=["abc"] * 8, n=8, max_tokens=1000, logprobs=5
    )
    live = running.engine(model).scheduler.live
    eventually(lambda: len(live) == 64 and all(row.paused for row in live))
    ticket = live[0].ticket
    assert len(ticket.unread) <= 64 * (BACKLOG + 1)
    began = time.monotonic()
    running.works(model)
    assert time.monotonic() - began < 1, "others do not wait for it"
    eventually(lambda: running.idle(model))
    assert len(ticket.unread) <= 64 * (BACKLOG + 1)
    assert psutil.Process().memory_info().rss - before < 64 << 20
    answer = read(slow)
    assert last_event(answer)["error"]["code"] == "unavailable"
    assert b"[DONE]" not in answer
    running.works(model)


def test_a_reader_that_is_slow_but_reads_gets_everything(serve: Callable[..., Running]) -> None:
    running = serve(slots=4)
    client = running.send(
        "tiny-text",
        receive_bytes=4096,
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=1500,
        logprobs=5,
    )
    answer = read(client, pause_seconds=0.01)
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert b'"completion_tokens":1500' in answer


# -- steps that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_step_that_fails_takes_its_rows_only(
    serve: Callable[..., Running], model: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(slots=2)
    pace = running.steps[model]
    pace.hold()
    with tasks(3) as submit:
        inside = [submit(running.complete, model, max_tokens=50) for _ in range(2)]
        eventually(lambda: running.value("live_rows", model) + running.value("waiting_rows", model) == 2)
        eventually(lambda: pace.rows)
        while pace.rows[-1] < 2:
            pace.let(1)
        outside = submit(running.complete, model, max_tokens=3)
        eventually(lambda: running.value("waiting_rows", model) == 1)
        pace.broken = True
        pace.let(1)
        pace.broken = False
        for each in inside:
            answer = each.result()
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "step_failed"
            assert "device" not in answer.text
        pace.go_on()
        assert outside.result().json()["choices"][0]["text"] == "def"
    assert running.http.get("/readyz").status_code == 200
    assert "the device is gone" in caplog.text
    assert running.value("cancelled_total", model) == 0


def test_a_step_that_fails_in_the_middle_of_a_stream_is_an_error_event(
    serve: Callable[..., Running],
) -> None:
    running = serve(slots=2)
    pace = running.steps["tiny-text"]
    pace.hold()
    client = running.send("tiny-text", stream=True)
    eventually(lambda: pace.rows)
    pace.let(5)
    pace.broken = True
    pace.go_on()
    answer = read(client)
    pace.broken = False
    assert answer.startswith(b"HTTP/1.1 200")
    assert last_event(answer)["error"]["code"] == "step_failed"
    assert b"[DONE]" not in answer
    running.works("tiny-text")


def test_a_model_that_fails_at_every_step_says_that_it_is_not_ready_until_it_works_again(
    serve: Callable[..., Running],
) -> None:
    running = serve(slots=2)
    running.steps["tiny-text"].broken = True
    for _ in range(3):
        assert running.http.get("/readyz").status_code == 200
        assert running.complete("tiny-text").status_code == 503
    assert running.http.get("/readyz").status_code == 503
    running.works("tiny-attention")
    running.steps["tiny-text"].broken = False
    running.works("tiny-text")
    assert running.http.get("/readyz").status_code == 200


# -- more work than fits -----------------------------------------------------------------------------------------------


def test_more_than_fits_is_refused_at_once_and_what_was_accepted_is_answered(
    serve: Callable[..., Running],
) -> None:
    running = serve(slots=2, max_waiting=8)
    running.works("tiny-text")

    def ask() -> tuple[int, float, httpx.Headers]:
        began = time.perf_counter()
        answer = running.complete("tiny-text", max_tokens=200)
        return answer.status_code, time.perf_counter() - began, answer.headers

    with tasks(40) as submit:
        answers = [each.result() for each in [submit(ask) for _ in range(200)]]
    refused = [(seconds, headers) for status, seconds, headers in answers if status == 429]
    assert {status for status, _, _ in answers} == {200, 429}
    assert all(1 <= int(headers["retry-after"]) <= 60 for _, headers in refused)
    assert running.value("rejected_total", "tiny-text", reason="queue_full") == len(refused)
    running.works("tiny-text")


def test_the_line_is_bounded_by_tokens(serve: Callable[..., Running]) -> None:
    running = serve(slots=1, max_waiting_tokens=2500)
    pace = running.steps["tiny-text"]
    pace.hold()
    clients = [running.send("tiny-text", max_tokens=1000)]
    eventually(lambda: pace.rows)
    clients += [running.send("tiny-text", max_tokens=1000) for _ in range(2)]
    eventually(lambda: running.value("waiting_rows", "tiny-text") == 2)
    answer = running.complete("tiny-text", max_tokens=1000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert running.value("waiting_tokens", "tiny-text") == 2006
    clients.append(running.send("tiny-text", max_tokens=10))
    eventually(lambda: running.value("waiting_rows", "tiny-text") == 3)
    for client in clients:
        client.close()
    pace.go_on()
    eventually(lambda: running.idle("tiny-text"))


def test_a_time_limit_that_would_pass_in_the_line_is_refused_at_once(serve: Callable[..., Running]) -> None:
    running = serve(slots=1)
    pace = running.steps["tiny-text"]
    running.works("tiny-text")
    running.complete("tiny-text", max_tokens=500)
    pace.hold()
    clients = [running.send("tiny-text", max_tokens=2000) for _ in range(12)]
    eventually(lambda: running.value("waiting_rows", "tiny-text") == 11)
    answer = running.complete("tiny-text", timeout=0.05)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_too_long")
    assert int(answer.headers["retry-after"]) >= 1
    for client in clients:
        client.close()
    eventually(lambda: running.value("waiting_rows", "tiny-text") == 0)
    pace.go_on()
    running.works("tiny-text")


def test_a_request_whose_time_passes_in_the_line_costs_no_step(serve: Callable[..., Running]) -> None:
    running = serve(slots=1)
    pace = running.steps["tiny-text"]
    pace.hold()
    first = running.send("tiny-text", max_tokens=2)
    eventually(lambda: pace.rows)
    answer = running.complete("tiny-text", timeout=0.1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert running.value("waiting_rows", "tiny-text") == 0
    pace.go_on()
    assert b'"de"' in read(first)
    assert len(pace.rows) <= 3


def test_a_key_with_a_long_line_delays_only_itself(serve: Callable[..., Running]) -> None:
    """However many requests one key has in the line, another key's takes the next free slot but one."""
    running = serve(slots=1)
    pace = running.steps["tiny-text"]
    pace.hold()
    keys = ["hot"] * 31 + ["one", "other"]
    clients = []
    for place, key in enumerate(keys):
        clients.append(running.send("tiny-text", key=key, max_tokens=20))
        eventually(lambda: pace.rows and running.value("waiting_rows", "tiny-text") == place)  # noqa: B023
    order: list[str] = []

    def wait(client: socket.socket, key: str) -> None:
        assert read(client).startswith(b"HTTP/1.1 200")
        order.append(key)

    with tasks(len(keys)) as submit:
        waits = [submit(wait, client, key) for client, key in zip(clients, keys, strict=True)]
        pace.go_on()
        for each in waits:
            each.result()
    assert sorted(order) == sorted(keys)
    assert max(order.index("one"), order.index("other")) < 6
