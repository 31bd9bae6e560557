"""Open and closed loops over a `Send`. Knows neither HTTP nor what is asked: it decides when the next request starts.

Open loop: requests start when the schedule says so, however slow the answers are, as independent users do.
Closed loop: so many requests are always in flight; a slow server is asked less often, so its stalls look smaller.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import TypeAlias

from service.loadtest.record import Record

Send: TypeAlias = Callable[[int, float | None, float], Awaitable[Record]]  # number, due, start -> record


@dataclass(slots=True)
class Tally:
    """What has happened so far; the live display reads it while the run writes it."""

    start: float = field(default_factory=perf_counter)
    records: list[Record] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    failed: int = 0
    output_tokens: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self.start

    async def take(self, send: Send, number: int, due: float | None = None) -> None:
        """Run one request and keep its record; one that is interrupted leaves a record as well."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        began = self.elapsed
        try:
            self._keep(await send(number, due, self.start))
        except asyncio.CancelledError:
            planned = began if due is None else due - self.start
            self._keep(Record(planned, began, self.elapsed, error="interrupted"))
            raise
        finally:
            self.in_flight -= 1

    def _keep(self, record: Record) -> None:
        self.records.append(record)
        self.failed += record.error is not None
        self.output_tokens += record.output_tokens


async def open_loop(send: Send, due: Sequence[float], tally: Tally) -> None:
    """Start request i at `due[i]` seconds from the tally's start, then wait for all of them."""
    tally.start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, offset in enumerate(due):
            time = tally.start + offset
            await _until(time)
            group.create_task(tally.take(send, number, time))


async def closed_loop(
    send: Send, concurrency: int, tally: Tally, *, requests: int | None = None, seconds: float | None = None
) -> None:
    """Keep `concurrency` requests in flight until so many were sent or the time is over; the last ones are awaited."""
    numbers = iter(count() if requests is None else range(requests))

    async def worker() -> None:
        for number in numbers:
            await tally.take(send, number)
            if seconds is not None and tally.elapsed >= seconds:
                return

    tally.start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency if requests is None else min(concurrency, requests)):
            group.create_task(worker())


async def _until(time: float) -> None:
    # The loop's clock counts milliseconds and may wake early: the rest of the way is passed in turns of the loop, so
    # that answers keep being read. At least one turn, else a late sender would read nothing until it caught up.
    await asyncio.sleep(max(0.0, time - perf_counter()))
    while perf_counter() < time:  # noqa: ASYNC110 - nothing happens at that time to wait for
        await asyncio.sleep(0)
