import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.responses import Response

from service.loadtest.execute import execute
from service.loadtest.plan import LoadTestError, Plan
from service.loadtest.runner import Tally
from service.loadtest.workload import Task
from tests.service.loadtest.known_server import Server, refusal


@contextmanager
def unseen(model: str, tally: Tally) -> Iterator[None]:
    yield


async def test_warm_up_requests_are_sent_and_not_measured(server: Server) -> None:
    outcome = await execute(Plan(server.url, Task.TEXT, concurrency=2, requests=6, warmup=4, seed=9), unseen)
    assert len(server.bodies) == 10
    assert len(outcome.records) == 6
    seeds = [body["seed"] for body in server.bodies]
    assert sorted(seeds[4:]) == list(range(9, 15))
    assert not set(seeds[:4]) & set(seeds[4:])


async def test_an_open_loop_repeats_with_its_seed(server: Server) -> None:
    plan = Plan(server.url, Task.ANOMALY, rate=400, requests=20, seed=4)
    first, second = await execute(plan, unseen), await execute(plan, unseen)
    due = [sorted(record.due for record in outcome.records) for outcome in (first, second)]
    assert due[0] == pytest.approx(due[1])


async def test_every_task_gets_answers(server: Server) -> None:
    for task in Task:
        outcome = await execute(Plan(server.url, task, concurrency=2, requests=4), unseen)
        assert {record.error for record in outcome.records} == {None}


async def test_a_host_is_reached_past_the_gateway(server: Server) -> None:
    outcome = await execute(Plan(f"{server.url}/studio", Task.ANOMALY, requests=2), unseen)
    assert [record.error for record in outcome.records] == [None, None]


async def test_a_warm_up_that_fails_altogether_says_why(server: Server) -> None:
    async def full(body: dict[str, object]) -> Response:
        return refusal(429, "queue_full")

    server.handler = full
    with pytest.raises(LoadTestError, match=r"All 3 warm-up requests failed \(429 queue_full\)"):
        await execute(Plan(server.url, Task.TEXT, requests=6, warmup=3), unseen)


async def test_the_watcher_sees_the_model_and_the_tally_while_it_fills(server: Server) -> None:
    seen: list[int] = []

    @contextmanager
    def watch(model: str, tally: Tally) -> Iterator[None]:
        assert model == "gpt"
        yield
        seen.append(len(tally.records))

    await execute(Plan(server.url, Task.TEXT, requests=3), watch)
    assert seen == [3]


async def test_an_interruption_keeps_what_was_measured(server: Server) -> None:
    server.delay = 0.03
    plan = Plan(server.url, Task.ANOMALY, concurrency=2, seconds=60)
    task = asyncio.create_task(execute(plan, unseen))
    await asyncio.to_thread(server.wait_for, 8)
    task.cancel()
    outcome = await task
    assert outcome.interrupted
    assert sum(record.error == "interrupted" for record in outcome.records) == 2
    assert sum(record.error is None for record in outcome.records) > 2
