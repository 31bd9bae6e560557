"""A host replica is killed while it works: Serve replaces it, and nobody gets anything but JSON."""

import concurrent.futures
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.conftest import Service, end, short_folder, start


@pytest.fixture(scope="module")
def fragile(tiny_store: Path) -> Iterator[Service]:
    """A service of its own, so that nobody else's tests run into the fault."""
    with short_folder() as folder:
        running = start(folder, "--store", str(tiny_store))
        yield running
        end(running)


def test_kill_9_of_a_host_replica_under_load(fragile: Service) -> None:
    stop = threading.Event()
    answers: list[tuple[int, str, bytes]] = []

    def load() -> None:
        body = {"model": "tiny-text", "prompt": "abc", "max_tokens": 20, "temperature": 0, "timeout": 40}
        while not stop.is_set():
            answer = requests.post(f"{fragile.url}/v1/completions", json=body, timeout=60)
            answers.append((answer.status_code, answer.headers.get("content-type", ""), answer.content))

    [victim] = fragile.replicas("Host")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load) for _ in range(4)]
        time.sleep(1)
        before = len(answers)
        victim.kill()
        psutil.wait_procs([victim], timeout=10)
        deadline = time.monotonic() + 60
        while len(answers) < before + 50 and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        for each in running:
            each.result(60)
    assert before > 0
    assert len(answers) > before + 50, "later requests succeed"
    for status, kind, content in answers:
        assert kind == "application/json", (status, kind, content[:200])
        json.loads(content)
        assert status in (200, 503)
    assert [status for status, _, _ in answers[-20:]] == [200] * 20
    [successor] = fragile.replicas("Host")
    assert successor.pid != victim.pid


def test_kill_9_in_the_middle_of_a_stream_is_an_error_event(fragile: Service) -> None:
    body = {
        "model": "tiny-text",
        "prompt": ["abc"] * 128,
        "max_tokens": 40,
        "temperature": 1,
        "ignore_eos": True,
        "stream": True,
        "n": 8,
    }
    events: list[str] = []
    [victim] = fragile.replicas("Host")
    with requests.post(f"{fragile.url}/v1/completions", json=body, stream=True, timeout=60) as answer:
        for line in answer.iter_lines(decode_unicode=True):
            if line:
                events.append(line)
            if len(events) == 3:
                victim.suspend()  # so that it cannot finish before it dies
                victim.kill()
    last = json.loads(events[-1].removeprefix("data: ")) if events[-1] != "data: [DONE]" else None
    assert last is not None, "the stream was whole: the replica died too late"
    assert last["error"]["code"] == "replica_lost"
