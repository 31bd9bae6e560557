"""What HTTP costs pictures, and what a short request waits for long ones: `atelier serve`, direct and by the gateway, beside the engine in process.

    python -m tests.load.image_http [--package FOLDER] [--connections 8] [--steps N] [--answers 24] [--threads 2] [--rounds 5] [--json FILE]

Every connection asks again as soon as its answer is complete. In each round the three take turns while the others are idle, on
the same cores. A short request (4 steps) is timed alone, and when it arrives among so many long ones (32 steps); a step is
what one of the long ones' steps takes without it.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.table import Table

from deployments.studio import Studio
from model_store.manifest import Manifest
from model_store.store import Package
from tests.e2e.conftest import end, short_folder, start
from tests.load.connection import Connection
from tests.load.image_runs import arguments, draw, package_at, run, seconds, store_of, studio_of
from tests.load.text_http import hosts_file
from tests.load.text_runs import judged, report, table

AIMS: Final = {"direct": 0.95}
LATE: Final = 1.5  # of a short request's time alone plus one step
SHORT, LONG = 4, 32  # steps
_BEGUN: Final = 0.25  # of the long ones' time, when the short one arrives
Ask = Callable[[int, int | None], Awaitable[object]]
"""A picture of a seed, in so many steps or the model's own number."""


@dataclass(frozen=True, slots=True)
class Line:
    """Median images per second, and what it is of the rate in process."""

    server: str
    connections: int
    images_per_second: float
    share: float
    rounds: list[float]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A short request among long ones: medians over the rounds, in seconds; `share`: of `alone` plus `step`."""

    server: str
    alone: float
    step: float
    among: float
    share: float


def in_process(studio: Studio, held: Manifest) -> Ask:
    """Without HTTP."""
    return lambda seed, steps: studio.call(draw(held, seed, steps=steps))


def over_http(connection: Connection, held: Manifest) -> Ask:
    """The same request on the wire."""

    def ask(seed: int, steps: int | None) -> Awaitable[object]:
        asked = draw(held, seed, steps=steps)
        fields: dict[str, Any] = {
            "model": asked.model,
            "prompt": asked.prompt or "",
            "seed": seed,
            "steps": steps,
        }
        return connection.post(fields)

    return ask


async def rate(asks: Sequence[Ask], *, steps: int | None, answers: int, seed: int) -> float:
    """Images per second of all connections together."""

    async def stream(number: int, ask: Ask) -> None:
        for answer in range(answers):
            await ask(100_000 * seed + 100 * number + answer, steps)

    passed = await seconds(asyncio.gather(*(stream(number, ask) for number, ask in enumerate(asks))))
    return len(asks) * answers / passed


async def arrive(asks: Sequence[Ask], seed: int) -> tuple[float, float, float]:
    """Seconds of a short request alone, of a step of the long ones without it, and of the short one among them.

    The last of the connections asks for the short one.
    """
    *others, last = asks
    alone = await seconds(last(seed, SHORT))
    whole = await seconds(asyncio.gather(*(ask(seed + i, LONG) for i, ask in enumerate(others))))
    running = [asyncio.ensure_future(ask(seed + i, LONG)) for i, ask in enumerate(others)]
    await asyncio.sleep(_BEGUN * whole)
    among = await seconds(last(seed, SHORT))
    await asyncio.gather(*running)
    return alone, whole / LONG, among


async def measure(
    asks: dict[str, list[Ask]], options: argparse.Namespace
) -> tuple[list[Line], list[Arrival]]:
    """Medians over the rounds, after one short one for warmth. Each server has one connection more than is measured, for arrivals."""
    rates: dict[str, list[float]] = {server: [] for server in asks}
    arrivals: dict[str, list[tuple[float, float, float]]] = {server: [] for server in asks}
    for group in asks.values():
        await rate(group, steps=options.steps, answers=1, seed=99)
    for number in range(options.rounds):
        for server, group in asks.items():
            work = rate(group[:-1], steps=options.steps, answers=options.answers, seed=number)
            rates[server].append(await work)
        for server, group in asks.items():
            arrivals[server].append(await arrive(group, 1000 * number))
    return compared(rates, options.connections), [late(*each) for each in arrivals.items()]


def compared(rates: dict[str, list[float]], connections: int) -> list[Line]:
    """Each server beside the engine in process in the same round."""
    return [
        Line(
            server,
            connections,
            median(found),
            median(its / base for its, base in zip(found, rates["in process"], strict=True)),
            found,
        )
        for server, found in rates.items()
    ]


def late(server: str, found: Sequence[tuple[float, float, float]]) -> Arrival:
    """Medians of one server."""
    alone, step, among = (median(each) for each in zip(*found, strict=True))
    return Arrival(server, alone, step, among, median(late / (own + one) for own, one, late in found))


def benchmark(package: Package, options: argparse.Namespace) -> tuple[list[Line], list[Arrival]]:
    """Start the service, measure, stop it."""
    held, slots = package.manifest, options.connections + 1
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        model = f"{held.name}:{held.version}"
        hosts = hosts_file(folder, store_of(package.folder), model, slots, options.threads)
        service = start(folder, "--hosts", str(hosts))
        stack.callback(end, service)
        studio, _ = stack.enter_context(studio_of(package, slots=slots, threads=options.threads))
        asks: dict[str, list[Ask]] = {"in process": [in_process(studio, held)] * slots}
        for server, base in (("direct", f"{service.url}/studio"), ("gateway", service.url)):
            connections = [Connection(f"{base}/v1/images/generations") for _ in range(slots)]
            asks[server] = [over_http(each, held) for each in connections]
        return run(measure(asks, options))


def show(name: str, lines: Sequence[Line], arrivals: Sequence[Arrival]) -> Iterator[Table]:
    """Both tables."""
    title = f"{name}: images per second at {lines[0].connections} connections"
    made = table(title, ("server", "images/s", "of in process", "aim"))
    for line in lines:
        aim = AIMS.get(line.server)
        shown = "" if aim is None else f"{aim:.2f}"
        made.add_row(line.server, f"{line.images_per_second:,.1f}", judged(line.share, aim), shown)
    yield made
    title = f"{name}: {SHORT} steps that arrive among {lines[0].connections} requests of {LONG}"
    shorts = table(title, ("server", "alone ms", "a step ms", "among ms", "of alone + a step", "aim"))
    for each in arrivals:
        shorts.add_row(
            each.server, f"{each.alone * 1e3:.1f}", f"{each.step * 1e3:.1f}", f"{each.among * 1e3:.1f}",
            judged(each.share, LATE, least=False), f"{LATE}",
        )  # fmt: skip
    yield shorts


def options_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of a picture (default: the model's own)")
    parser.add_argument(
        "--answers",
        type=int,
        default=24,
        help="of each connection in one round: so many that filling and draining the engine count for little",
    )
    return parser.parse_args(given)


def main() -> None:
    options = options_of()
    package = package_at(options.package)
    lines, arrivals = benchmark(package, options)
    report(list(show(package.manifest.name, lines, arrivals)), [*lines, *arrivals], options.json)


if __name__ == "__main__":
    main()
