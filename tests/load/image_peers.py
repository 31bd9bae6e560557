"""Latency and throughput of `atelier serve`, of diffusers behind FastAPI and of Ray Serve's `@serve.batch`: one model, one run, medians.

    python -m tests.load.image_peers [--at DIR] [--connections 1 4 8 16] [--kinds alike mixed] [--steps 8] [--answers 2]
                                     [--servers NAME ...] [--threads 2] [--rounds 5] [--json FILE]

The model is a latent diffusion pipeline of random weights for 64x64 pixels: the peers run it in torch, ours as `atelier export diffusers` makes it.
All pictures are guided. `alike`: all in the same number of steps; `mixed`: in 4 to 32. In each round every server takes every case in turn, the
others idle. Each connection asks again as soon as its answer is complete. How long Ray Serve's batches wait for more
is tried out first, and what gives most pictures is kept.
"""

import argparse
import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final, Literal

import requests
from rich.table import Table

from tests.e2e.conftest import end, short_folder, start
from tests.load.connection import Connection
from tests.load.image_runs import run
from tests.load.peers.server import serving
from tests.load.text_http import hosts_file
from tests.load.text_runs import report, table

OURS: Final = "atelier"
DIFFUSERS: Final = "diffusers"
RAY: Final = "ray serve"
MODEL: Final = "random-diffusion"
GUIDANCE: Final = 4.0
# Neighbours differ much, and any few have about the mean of all.
MIXED: Final = (16, 20, 4, 32, 12, 24, 8, 28)
WAITS: Final = (0.0, 0.02, 0.1, 0.3)  # seconds
_TRIED: Final = 8  # connections while waits are tried out

Kind = Literal["alike", "mixed"]


@dataclass(frozen=True, slots=True)
class Case:
    """So many connections at once, each asking so often."""

    kind: Kind
    connections: int
    steps: int
    answers: int

    def fields(self, number: int, seed: int) -> dict[str, Any]:
        """What request `number` of the case asks for."""
        steps = self.steps if self.kind == "alike" else MIXED[number % len(MIXED)]
        asked = {"model": MODEL, "prompt": f"picture {number}", "seed": 1000 * seed + number}
        return asked | {"steps": steps, "guidance_scale": GUIDANCE}


@dataclass(frozen=True, slots=True)
class Found:
    """What one run of a case gave: pictures per second, and seconds from request to answer."""

    rate: float
    middle: float
    worst: float


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one server in one case; ours as a multiple of its rate, and of its latency: medians of the rounds' ratios."""

    server: str
    case: Case
    images_per_second: float
    middle_seconds: float
    worst_seconds: float
    ours: float
    ours_latency: float


async def measure(url: str, case: Case, seed: int) -> Found:
    """One run of a case."""
    came: list[float] = []

    async def ask(place: int, connection: Connection) -> None:
        for number in range(place * case.answers, (place + 1) * case.answers):
            sent = perf_counter()
            await connection.post(case.fields(number, seed))
            came.append(perf_counter() - sent)

    connections = [Connection(f"{url}/v1/images/generations") for _ in range(case.connections)]
    began = perf_counter()
    await asyncio.gather(*(ask(*each) for each in enumerate(connections)))
    passed = perf_counter() - began
    for each in connections:
        each.close()
    return Found(len(came) / passed, median(came), max(came))


def prepare(at: Path) -> tuple[Path, Path]:
    """Make the model where it is not there already: as a diffusers directory, and in a store as ours."""
    pipeline, store = at / "pipeline", at / "store"
    if not pipeline.is_dir():
        subprocess.run([sys.executable, "-m", "tests.load.peers.pipeline", str(pipeline)], check=True)
    if not (store / MODEL).is_dir():
        atelier = str(Path(sys.executable).with_name("atelier"))
        export = ["export", "diffusers", str(pipeline), "--name", MODEL, "--store", str(store)]
        subprocess.run([atelier, *export], check=True)
    return pipeline, store


@contextmanager
def servers(at: Path, wanted: Sequence[str], slots: int, threads: int) -> Iterator[dict[str, str]]:
    """All that are wanted, running: their addresses by name."""
    pipeline, store = prepare(at)
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        found = {}
        if OURS in wanted:
            hosts = hosts_file(folder, store, MODEL, slots, threads)
            service = start(folder, "--hosts", str(hosts))
            stack.callback(end, service)
            found[OURS] = f"{service.url}/studio"
        own = {
            DIFFUSERS: ("tests.load.peers.diffusers_server", str(pipeline), str(threads)),
            RAY: ("tests.load.peers.ray_server", str(pipeline), str(threads), str(folder / "ray")),
        }
        for name, arguments in own.items():
            if name in wanted:
                found[name] = stack.enter_context(serving(*arguments))
        yield found


def tune(url: str, steps: int, answers: int) -> float:
    """Let Ray Serve's batches wait as long as gives most pictures; return the seconds."""
    case = Case("alike", _TRIED, steps, answers)
    rates = {}
    for wait in WAITS:
        requests.put(f"{url}/wait", params={"seconds": wait}, timeout=60).raise_for_status()
        rates[wait] = run(measure(url, case, 99)).rate
    best = max(rates, key=lambda wait: rates[wait])
    requests.put(f"{url}/wait", params={"seconds": best}, timeout=60).raise_for_status()
    return best


def rounds(
    urls: Mapping[str, str], cases: Sequence[Case], number: int
) -> dict[tuple[str, Case], list[Found]]:
    """So many rounds, after one short case for warmth."""
    for url in urls.values():
        run(measure(url, Case("alike", 2, 2, 1), 98))
    seen: dict[tuple[str, Case], list[Found]] = defaultdict(list)
    for seed, case in product(range(number), cases):
        for server, url in urls.items():
            seen[server, case].append(run(measure(url, case, seed)))
    return seen


def compared(seen: Mapping[tuple[str, Case], Sequence[Found]]) -> list[Line]:
    """Each server's figures beside ours in the same round."""
    lines = []
    for (server, case), runs in seen.items():
        images, middle, worst = (median(getattr(each, name) for each in runs) for name in Found.__slots__)
        pairs = list(zip(seen.get((OURS, case), ()), runs, strict=False))
        rate = median(ours.rate / theirs.rate for ours, theirs in pairs) if pairs else 0.0
        latency = median(ours.middle / theirs.middle for ours, theirs in pairs) if pairs else 0.0
        lines.append(Line(server, case, images, middle, worst, rate, latency))
    return sorted(lines, key=lambda line: (line.case.kind, line.case.connections))


def show(lines: Sequence[Line], wait: float | None) -> Table:
    """One line for each server and case."""
    title = "Pictures over HTTP" + (
        f"; Ray Serve's batches wait {wait:g} s for more" if wait is not None else ""
    )
    columns = ("steps", "server", "connections", "images/s", "ours is", "median s", "ours is", "worst s")
    made = table(title, columns, words=2)
    for line in lines:
        alone = line.server == OURS
        made.add_row(
            str(line.case.steps) if line.case.kind == "alike" else f"{min(MIXED)} to {max(MIXED)}", line.server,
            str(line.case.connections), f"{line.images_per_second:.2f}", "" if alone else f"{line.ours:.2f}",
            f"{line.middle_seconds:.2f}", "" if alone else f"{line.ours_latency:.2f}", f"{line.worst_seconds:.2f}",
        )  # fmt: skip
    return made


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [OURS, DIFFUSERS, RAY]
    parser.add_argument("--at", type=Path, help="folder that keeps the model (default: made for this run)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--kinds", nargs="+", default=["alike", "mixed"], choices=["alike", "mixed"])
    parser.add_argument("--steps", type=int, default=8, help="of pictures that are alike")
    parser.add_argument("--answers", type=int, default=2, help="of each connection in one round")
    parser.add_argument("--servers", nargs="+", default=names, choices=names)
    parser.add_argument("--threads", type=int, default=2, help="of each server's model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    cases = [
        Case(kind, count, options.steps, options.answers)
        for kind, count in product(options.kinds, options.connections)
    ]
    with ExitStack() as stack:
        at = options.at or stack.enter_context(short_folder())
        running = servers(at.resolve(), options.servers, max(options.connections), options.threads)
        urls = stack.enter_context(running)
        wait = tune(urls[RAY], options.steps, options.answers) if RAY in urls else None
        lines = compared(rounds(urls, cases, options.rounds))
    report([show(lines, wait)], lines, options.json)


if __name__ == "__main__":
    main()
