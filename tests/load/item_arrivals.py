"""Batching of whatever waits beside batching by a timer: latency and throughput at 5, 50, 90 and 150 % of capacity, open loop.

    python -m tests.load.item_arrivals [--package FOLDER] [--loads 5 50 90 150] [--wait 0.005] [--max-batch 64] [--threads 1]
                                       [--seconds 5] [--rounds 3] [--json FILE]

In process: the same door, the same graph, items of one request each, at Poisson arrivals drawn before the first is sent. The one runs what waits
as soon as the device is free; the other waits from then on until its batch is full or so many seconds have passed, as LitServe's
and Ray Serve's loops do. Capacity is what the first answers in a closed loop of four batches. Latency is counted from the time
at which a request was due, so that no wait before its sending is left out. In each round both take every load in turn.
"""

import argparse
import asyncio
import logging
import selectors
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry
from rich.table import Table

from deployments.config import HostConfig
from deployments.engine import Engine
from deployments.errors import QueueFull
from deployments.messages import Score, TensorItem
from deployments.metrics import Metrics
from deployments.model import OneShotModel, open_model
from deployments.oneshot import Done, Task
from deployments.studio import Studio
from model_store.session import choose_device
from model_store.store import Package
from service.loadtest.arrivals import schedule
from tests.load.image_runs import package_at
from tests.load.item_runs import pictures
from tests.load.text_runs import report, table

SHIPPED: Final = "fashion-vae"
"""Heavy enough that its graph is what is busy, not the event loop, which asks as well."""

OURS, TIMER = "whatever waits", "timer"
_PICTURES: Final = 64  # that differ
_BATCHES: Final = 4  # requests at once while capacity is measured, in batches


@dataclass(frozen=True, slots=True)
class Found:
    """One run: answers per second, seconds from due to answered, and the share that was refused."""

    rate: float
    p50: float
    p99: float
    refused: float


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one batcher at one load, a share of capacity."""

    batcher: str
    load: float
    offered: float
    answers_per_second: float
    p50_seconds: float
    p99_seconds: float
    refused: float
    mean_batch: float


class Timer(Engine[Task, Done]):
    """Waits for a full batch, for so long from when it is free."""

    wait_seconds = 0.0

    def _wait_for_work(self) -> bool:
        if not super()._wait_for_work():
            return False
        end = self.clock() + self.wait_seconds
        with self._changed:
            while len(self.scheduler.waiting) < self.program.capacity and not self._stopping:
                left = end - self.clock()
                if left <= 0:
                    break
                self._changed.wait(left)
        return True


class Batcher:
    """A studio of one model, and what is asked of it."""

    def __init__(self, package: Package, config: HostConfig, wait_seconds: float | None) -> None:
        """`wait_seconds`: of the timer; None: whatever waits."""
        self._metrics = Metrics(CollectorRegistry())
        model = open_model(package, config, choose_device("cpu"), self._metrics)
        if not isinstance(model, OneShotModel):
            raise TypeError(f"{package.manifest.name} reads no items")
        self.name = package.manifest.name
        if wait_seconds is not None:
            timer = Timer(self.name, model.engine.program, self._metrics, max_waiting=config.max_waiting)
            timer.wait_seconds = wait_seconds
            model.engine = timer
        self.studio = Studio([model], self._metrics)
        held = package.manifest
        self._items = [TensorItem(each.tobytes(), each.shape) for each in pictures(held, _PICTURES)]

    async def ask(self, number: int) -> None:
        """One item. Raises QueueFull."""
        await self.studio.call(Score(self.name, (self._items[number % _PICTURES],)))

    def runs(self) -> tuple[float, float]:
        """Rows and runs of the graph so far."""
        rows = runs = 0.0
        for metric in self._metrics.batch_rows.collect():
            for sample in metric.samples:
                rows += sample.value * sample.name.endswith("_sum")
                runs += sample.value * sample.name.endswith("_count")
        return rows, runs


async def capacity(batcher: Batcher, connections: int, seconds: float) -> float:
    """Answers per second when so many ask again as soon as they are answered."""
    end = perf_counter() + seconds
    answered = 0

    async def asking(number: int) -> None:
        nonlocal answered
        while perf_counter() < end:
            await batcher.ask(number)
            answered += 1

    began = perf_counter()
    await asyncio.gather(*(asking(number) for number in range(connections)))
    return answered / (perf_counter() - began)


async def arrive(batcher: Batcher, due: Sequence[float]) -> Found:
    """Ask at these times, and wait for all answers."""
    came: list[float] = []

    async def ask(number: int, time: float) -> None:
        try:
            await batcher.ask(number)
        except QueueFull:
            return
        came.append(perf_counter() - time)

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, offset in enumerate(due):
            # At least one turn of the loop, so that who is late lets others answer.
            await asyncio.sleep(max(0.0, began + offset - perf_counter()))
            group.create_task(ask(number, began + offset))
    passed = perf_counter() - began
    middle, late = np.percentile(came, (50, 99))
    return Found(len(came) / passed, float(middle), float(late), 1 - len(came) / len(due))


def precise() -> asyncio.AbstractEventLoop:
    """An event loop that wakes within microseconds: others count milliseconds, and arrivals would come in bunches."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def measure(
    batchers: Mapping[str, Batcher], loads: Sequence[float], *, batch: int, seconds: float, rounds: int
) -> list[Line]:
    """All rounds, after capacity."""
    for each in batchers.values():
        await capacity(each, _BATCHES * batch, seconds / 5)
    rate = await capacity(batchers[OURS], _BATCHES * batch, seconds)
    seen: dict[tuple[str, float], list[Found]] = defaultdict(list)
    steps: dict[tuple[str, float], Any] = defaultdict(lambda: np.zeros(2))
    for number, load, (name, batcher) in product(range(rounds), loads, batchers.items()):
        due = schedule(rate * load, seed=number, seconds=seconds)
        before = np.array(batcher.runs())
        seen[name, load].append(await arrive(batcher, due))
        steps[name, load] += batcher.runs() - before
    lines = []
    for (name, load), found in seen.items():
        answers, middle, late, refused = (
            median(getattr(each, part) for each in found) for part in Found.__slots__
        )
        rows, runs = steps[name, load]
        lines.append(Line(name, load, rate * load, answers, middle, late, refused, float(rows / runs)))
    return lines


def show(name: str, lines: Sequence[Line]) -> Table:
    """One line for each load and batcher."""
    columns = ("load", "batches", "asked/s", "answered/s", "p50 ms", "p99 ms", "refused", "mean batch")
    made = table(f"{name}: scores at Poisson arrivals, in process", columns, words=2)
    for line in lines:
        made.add_row(
            f"{line.load:.0%}", line.batcher, f"{line.offered:,.0f}", f"{line.answers_per_second:,.0f}",
            f"{line.p50_seconds * 1e3:.2f}", f"{line.p99_seconds * 1e3:.2f}", f"{line.refused:.1%}",
            f"{line.mean_batch:.1f}",
        )  # fmt: skip
    return made


@contextmanager
def opened(package: Package, options: argparse.Namespace) -> Iterator[dict[str, Batcher]]:
    """Both batchers."""
    config = HostConfig(max_batch=options.max_batch, threads=options.threads)
    with ExitStack() as stack:
        found = {}
        for name, wait in ((OURS, None), (TIMER, options.wait)):
            found[name] = Batcher(package, config, wait)
            stack.callback(found[name].studio.close)
        yield found


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, help=f"package folder, <name>/<version> (default: {SHIPPED})")
    parser.add_argument("--loads", type=float, nargs="+", default=[5, 50, 90, 150], help="%% of capacity")
    parser.add_argument("--wait", type=float, default=0.005, help="seconds of the timer")
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of the model")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(arguments)


def main() -> None:
    # The same few items over and over have drifted, rightly.
    logging.getLogger("deployments.reconstruction.drift").setLevel(logging.ERROR)
    options = options_of()
    package = package_at(options.package, SHIPPED)
    loads = [each / 100 for each in options.loads]
    with opened(package, options) as batchers, asyncio.Runner(loop_factory=precise) as runner:
        sizes = {"batch": options.max_batch, "seconds": options.seconds, "rounds": options.rounds}
        lines = runner.run(measure(batchers, loads, **sizes))
    report([show(package.manifest.name, lines)], lines, options.json)


if __name__ == "__main__":
    main()
