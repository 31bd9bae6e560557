import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from service.streams import MOST, Drain


class Source:
    """Counts upwards; a test opens the gate for as many numbers as it likes."""

    def __init__(self, end: int = 1_000_000, failure: BaseException | None = None) -> None:
        self.gate = asyncio.Semaphore(0)
        self.given = 0
        self.closed = False
        self._end, self._failure = end, failure

    async def numbers(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._end):
                await self.gate.acquire()
                self.given += 1
                yield number
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed = True

    def open(self, count: int) -> None:
        for _ in range(count):
            self.gate.release()


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def test_what_waits_goes_together() -> None:
    source = Source()
    async with aclosing(Drain(source.numbers()).groups()) as groups:
        source.open(1)
        assert await anext(groups) == [0]
        source.open(3)
        await settle()
        assert await anext(groups) == [1, 2, 3]
        source.open(1)
        assert await anext(groups) == [4]
    assert source.closed


async def test_one_by_one_for_a_reader_that_keeps_up() -> None:
    source = Source(end=5)
    source.open(1)
    groups = []
    async for group in Drain(source.numbers()).groups():
        groups.append(group)
        source.open(1)
    assert groups == [[0], [1], [2], [3], [4]]


async def test_a_reader_that_does_not_read_holds_the_source_back() -> None:
    source = Source()
    source.open(10 * MOST)
    async with aclosing(Drain(source.numbers()).groups()) as groups:
        first = await anext(groups)
        await settle()
        assert source.given <= len(first) + MOST + 1
        await settle()
        assert await anext(groups) == list(range(len(first), len(first) + MOST))
    assert source.closed


async def test_all_of_it_in_order() -> None:
    source = Source(end=100)
    source.open(100)
    read = [number async for group in Drain(source.numbers(), most=7).groups() for number in group]
    assert read == list(range(100))
    assert source.closed


async def test_a_failure_comes_after_what_came_before_it() -> None:
    source = Source(end=2, failure=KeyError("broken"))
    source.open(2)
    async with aclosing(Drain(source.numbers()).groups()) as groups:
        assert await anext(groups) == [0, 1]
        with pytest.raises(KeyError, match="broken"):
            await anext(groups)
    assert source.closed


async def test_a_failure_that_nobody_waits_for_is_not_reported_twice() -> None:
    source = Source(end=1, failure=KeyError("broken"))
    source.open(1)
    async with aclosing(Drain(source.numbers()).groups()) as groups:
        assert await anext(groups) == [0]
        await settle()
    assert source.closed


async def test_cancelling_the_reader_closes_the_source() -> None:
    source = Source()

    async def read() -> None:
        async for _ in Drain(source.numbers()).groups():
            pass

    reader = asyncio.create_task(read())
    await settle()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert source.closed


async def test_nothing_at_all() -> None:
    assert [group async for group in Drain(Source(end=0).numbers()).groups()] == []
