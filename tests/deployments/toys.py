"""Small real collaborators of the engine's tests: a program that counts, a clock that stands still, a counted loop."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any

from prometheus_client import CollectorRegistry

from deployments.engine import Engine
from deployments.metrics import Metrics
from deployments.rows import Row

CountRow = Row[int, int]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


class Counting:
    """A row's work is a number to count to, one event a step; a paused row waits. The count is the slot's state.

    `paced`: a step waits for `pace.release()`. `steps` has the goals of the rows of every step, in slot order.
    """

    def __init__(self, capacity: int, *, paced: bool = False) -> None:
        self.capacity = capacity
        self.pace = threading.Semaphore(0)
        self.steps: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        self.moves: list[tuple[int, int]] = []
        self.released: list[object] = []
        self.before_step: Callable[[Sequence[CountRow]], None] = lambda rows: None
        self.before_admit: Callable[[CountRow], None] = lambda row: None
        self.before_move: Callable[[], None] = lambda: None
        self._paced = paced
        self._counts = [-1] * capacity

    def admit(self, row: CountRow) -> None:
        self.before_admit(row)
        self._counts[row.slot] = 0

    def release(self, rows: Sequence[CountRow], live: int) -> None:
        self.released.extend(row.work for row in rows)

    def move(self, source: int, target: int) -> None:
        self.before_move()
        self.moves.append((source, target))
        self._counts[target] = self._counts[source]

    def step(self, rows: Sequence[CountRow]) -> list[tuple[CountRow, int]]:
        self.steps.put([row.work for row in rows])
        if self._paced:
            assert self.pace.acquire(timeout=5)
        self.before_step(rows)
        events = []
        for row in rows:
            if row.leaving or row.paused:
                continue
            self._counts[row.slot] += 1
            row.done = self._counts[row.slot] == row.work
            events.append((row, self._counts[row.slot]))
        return events

    async def began(self) -> list[int]:
        """Goals of the rows of the next step, once it has begun."""
        return await asyncio.to_thread(self.steps.get, timeout=5)


class CountedLoop(asyncio.SelectorEventLoop):
    """An event loop that counts how often other threads woke it."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = 0

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


@contextmanager
def running(
    program: Counting,
    *,
    max_waiting: int = 100,
    clock: Callable[[], float] = time.perf_counter,
    registry: CollectorRegistry | None = None,
) -> Iterator[Engine[int, int]]:
    """An engine over the program, stopped at the end whatever happens."""
    metrics = Metrics(registry or CollectorRegistry())
    engine: Engine[int, int] = Engine("toy", program, metrics, max_waiting=max_waiting, clock=clock)
    engine.start()
    try:
        yield engine
    finally:
        for row in (*engine.scheduler.live, *engine.scheduler.waiting):
            row.ticket.closed = True
        program.pace.release(10_000)
        engine.stop()


async def until(holds: Callable[[], object]) -> None:
    """Let the event loop turn until it holds: for what another thread makes true soon and tells nobody."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.001)
