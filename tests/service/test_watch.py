import asyncio
import time

import pytest

from deployments.errors import Cancelled, DeadlineExceeded
from service.call import Call
from service.watch import PERIOD_SECONDS, Watch
from tests.service.wire import Exchange


def call_of(exchange: Exchange) -> Call:
    return Call(exchange.scope(), exchange.receive, exchange.send)


def read(exchange: Exchange) -> Exchange:
    """The same exchange after its body was read."""
    exchange.received = len(exchange.pieces)
    return exchange


async def test_work_in_time_is_left_alone() -> None:
    watch = Watch()
    with watch.over(call_of(read(Exchange("/"))), 60):
        await asyncio.sleep(3 * PERIOD_SECONDS)
    await asyncio.sleep(2 * PERIOD_SECONDS)  # nothing of it fires later


async def test_work_ends_at_its_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded), Watch().over(call_of(read(Exchange("/"))), 0.02):
        await asyncio.sleep(60)
    assert time.monotonic() - began < 10
    await asyncio.sleep(0)  # and the task can go on


async def test_a_deadline_that_has_passed_already() -> None:
    with pytest.raises(DeadlineExceeded), Watch().over(call_of(read(Exchange("/"))), -1):
        await asyncio.sleep(60)


async def test_work_ends_when_the_client_leaves() -> None:
    exchange = read(Exchange("/"))
    asyncio.get_running_loop().call_later(0.02, exchange.leave)
    with pytest.raises(Cancelled), Watch().over(call_of(exchange), 60):
        await asyncio.sleep(60)


async def test_a_get_whose_body_nobody_read() -> None:
    exchange = Exchange("/", [b""])
    exchange.leave()
    with pytest.raises(Cancelled), Watch().over(call_of(exchange), 60):
        await asyncio.sleep(60)


async def test_who_else_cancels_sees_it_cancelled() -> None:
    async def work() -> None:
        with Watch().over(call_of(read(Exchange("/"))), 60):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(2 * PERIOD_SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_of_the_work_is_its_own() -> None:
    with pytest.raises(ValueError, match="mine"), Watch().over(call_of(read(Exchange("/"))), 60):
        raise ValueError("mine")


async def test_many_calls_end_each_at_its_own_time() -> None:
    watch = Watch()

    async def work(seconds: float) -> str:
        try:
            with watch.over(call_of(read(Exchange("/"))), seconds):
                await asyncio.sleep(0.3)
        except DeadlineExceeded:
            return "late"
        return "done"

    assert await asyncio.gather(*map(work, (0.05, 60, 0.1, 60))) == ["late", "done", "late", "done"]


def test_one_watch_serves_one_loop_after_another() -> None:
    watch = Watch()

    async def late() -> None:
        with pytest.raises(DeadlineExceeded), watch.over(call_of(read(Exchange("/"))), 0.01):
            await asyncio.sleep(60)

    asyncio.run(late())
    asyncio.run(late())


def test_it_belongs_into_a_task() -> None:
    with pytest.raises(RuntimeError):
        Watch().over(call_of(Exchange("/")), 1)
