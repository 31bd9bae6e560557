"""What pictures cost beside the graph: previews, and encoding beside the next step; and how long encoding a large picture takes.

    python -m tests.load.image_costs [--package FOLDER] [--streams 8] [--steps 32] [--threads 2] [--rounds 5] [--json FILE]

In process. The same requests run without previews, with three, and with one after every step, in turn. A step of the engine is the graph,
what is done around it for each row (`around`), and the time until the next one begins (`gap`), while pictures are decoded and encoded on
other threads.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from time import perf_counter
from typing import Any, Final

import numpy as np
from rich.table import Table

from deployments.messages import Draw
from deployments.metrics import Metrics
from deployments.pictures import encode
from deployments.studio import Studio
from model_store.manifest import Manifest
from model_store.session import Array
from tests.load.image_runs import arguments, draw, package_at, run, seconds, studio_of
from tests.load.text_runs import judged, report, table
from tests.load.text_streams import graph_steps

PREVIEWS: Final = 3
OVERHEAD: Final = 0.10  # of a picture without previews
SIDE: Final = 1024
ENCODING: Final = 25.0  # milliseconds of a PNG of that side


class Watched:
    """A program that notes when its steps began and ended."""

    def __init__(self, program: Any) -> None:
        self.capacity = program.capacity
        self.admit, self.release, self.move = program.admit, program.release, program.move
        self.steps: list[tuple[float, float]] = []
        self._step = program.step

    def step(self, rows: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Take a step."""
        began = perf_counter()
        events: list[tuple[Any, Any]] = self._step(rows)
        self.steps.append((began, perf_counter()))
        return events


@dataclass(frozen=True, slots=True)
class Round:
    """One run of all streams, in milliseconds; the last three are means of one step."""

    whole: float
    graph: float
    around: float
    gap: float


@dataclass(frozen=True, slots=True)
class Line:
    """Medians over the rounds. `more`: of the time without previews in the same round."""

    previews: int
    whole_ms: float
    graph_ms: float
    around_ms: float
    gap_ms: float
    more: float


@dataclass(frozen=True, slots=True)
class Encoding:
    """A PNG of 1024x1024 pixels."""

    picture: str
    milliseconds: float
    kilobytes: float


async def streamed(studio: Studio, asked: Draw) -> int:
    """Read a picture and its previews; return how many came."""
    return len([picture async for picture in studio.pictures(asked)])


async def once(studio: Studio, metrics: Metrics, watched: Watched, asked: Sequence[Draw]) -> Round:
    """All requests at once."""
    watched.steps.clear()
    name = asked[0].model
    _, _, before = graph_steps(metrics, name, "denoise")
    whole = await seconds(asyncio.gather(*(streamed(studio, each) for each in asked)))
    _, _, after = graph_steps(metrics, name, "denoise")
    graph = (after - before) / len(watched.steps)
    step = mean(ended - began for began, ended in watched.steps)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(watched.steps)]
    return Round(whole * 1e3, graph * 1e3, (step - graph) * 1e3, mean(gaps) * 1e3 if gaps else 0.0)


async def measure(
    studio: Studio, metrics: Metrics, held: Manifest, *, streams: int, steps: int, rounds: int
) -> list[Line]:
    """No previews, some, and as many as steps allow, in turn; medians."""
    engine = studio._models[held.name].engine
    engine.program = watched = Watched(engine.program)
    kinds = (0, PREVIEWS, steps - 1)

    def asked(previews: int, seed: int) -> list[Draw]:
        return [draw(held, 100 * seed + i, steps=steps, previews=previews) for i in range(streams)]

    await once(studio, metrics, watched, asked(PREVIEWS, 99))
    found = [
        [await once(studio, metrics, watched, asked(previews, number)) for previews in kinds]
        for number in range(rounds)
    ]
    lines = []
    for previews, runs in zip(kinds, zip(*found, strict=True), strict=True):
        whole, graph, around, gap = (median(getattr(each, name) for each in runs) for name in Round.__slots__)
        more = median(its.whole / all_[0].whole for its, all_ in zip(runs, found, strict=True)) - 1
        lines.append(Line(previews, whole, graph, around, gap, more))
    return lines


def pictures() -> dict[str, Array]:
    """Three of three channels in [0, 1]: one of noise, one as smooth and as grainy as a photograph, one of a single colour."""
    generator = np.random.default_rng(0)
    noise = generator.random((3, SIDE, SIDE), np.float32)
    # Amplitudes of natural scenes fall with the inverse of their frequency (Field, 1987).
    distances = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    distances[0, 0] = 1 / SIDE
    smooth = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((3, SIDE, SIDE))) / distances)
    smooth = 0.5 + smooth / (6 * smooth.std()) + 0.01 * generator.standard_normal(smooth.shape)
    flat = np.broadcast_to(np.array([0.2, 0.5, 0.8], np.float32)[:, None, None], noise.shape)
    return {"noise": noise, "photograph": smooth.clip(0, 1).astype(np.float32), "flat": flat}


def encodings(rounds: int) -> list[Encoding]:
    """All pictures in turn in each round; medians."""
    made = pictures()
    sizes = {name: len(encode(pixels)) / 1e3 for name, pixels in made.items()}
    seen: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, pixels in made.items():
            began = perf_counter()
            encode(pixels)
            seen[name].append((perf_counter() - began) * 1e3)
    return [Encoding(name, median(found), sizes[name]) for name, found in seen.items()]


def show(title: str, lines: Sequence[Line], files: Sequence[Encoding]) -> Iterator[Table]:
    """Both tables."""
    made = table(title, ("previews", "ms", "more", "aim", "graph ms a step", "around", "gap"), words=0)
    for line in lines:
        aim = OVERHEAD if line.previews == PREVIEWS else None
        made.add_row(
            str(line.previews), f"{line.whole_ms:.0f}",
            judged(line.more, aim, least=False, form=".3f") if line.previews else "",
            "" if aim is None else f"{aim:.2f}",
            f"{line.graph_ms:.2f}", f"{line.around_ms:.2f}", f"{line.gap_ms:.2f}",
        )  # fmt: skip
    yield made
    large = table(f"PNG of {SIDE}x{SIDE} pixels in RGB", ("picture", "ms", "aim", "kB"))
    for each in files:
        shown = judged(each.milliseconds, ENCODING, least=False, form=".1f")
        large.add_row(each.picture, shown, f"{ENCODING:.0f}", f"{each.kilobytes:,.0f}")
    yield large


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32)
    options = parser.parse_args()
    package = package_at(options.package)
    held = package.manifest
    with studio_of(package, slots=options.streams, threads=options.threads) as (studio, metrics):
        work = measure(
            studio, metrics, held, streams=options.streams, steps=options.steps, rounds=options.rounds
        )
        lines = run(work)
    files = encodings(options.rounds)
    title = f"{held.name}: {options.streams} pictures at once, {options.steps} steps each"
    report(list(show(title, lines, files)), [*lines, *files], options.json)


if __name__ == "__main__":
    main()
