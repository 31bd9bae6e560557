"""What batching step by step is worth: eight requests of 4 to 32 steps at once, beside the bare graph and one after another.

    python -m tests.load.image_mixed [--package FOLDER] [--threads 2] [--rounds 5] [--json FILE]

In process; every other request is guided. `packed` is the graph alone, without a server: as many evaluations of the model as the
requests take, in full batches of as many rows as they begin with. What batches can be worth at most is the graph's own
doing: the second table has what a row costs it in batches of each size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.table import Table

from deployments.metrics import Metrics
from deployments.studio import Studio
from model_store.manifest import Manifest
from tests.load.image_runs import (
    Bare,
    arguments,
    mixed,
    one_by_one,
    package_at,
    rows_of,
    run,
    seconds,
    studio_of,
    together,
)
from tests.load.text_runs import judged, report, table
from tests.load.text_streams import graph_steps

OVER: Final = 1.15  # of the packed batch
FASTER: Final = 1.5  # than one after another
BATCHES: Final = (1, 2, 4, 8, 16)
_RUNS: Final = 32  # of each batch size: rows in all


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds. `in_graph`: of `together`, what the graph took."""

    packed: float
    together: float
    in_graph: float
    one_by_one: float


@dataclass(frozen=True, slots=True)
class Line:
    """Medians over the rounds, in seconds; shares are medians of the rounds' own.

    `at_best`: how much faster the packed batch is than one after another, which no scheduling can pass.
    """

    rows: int
    evaluations: int
    mean_batch: float
    packed: float
    together: float
    in_graph: float
    one_by_one: float
    over: float
    faster: float
    at_best: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a row of a batch of this size costs the graph, in milliseconds, and of what it costs alone."""

    batch: int
    row_ms: float
    share: float


async def once(studio: Studio, metrics: Metrics, bare: Bare, held: Manifest, seed: int) -> Round:
    """One round."""
    asked = mixed(held, 100 * seed)
    _, rows, before = graph_steps(metrics, held.name, "denoise")
    mixture = await seconds(together(studio, asked))
    _, after, busy = graph_steps(metrics, held.name, "denoise")
    alone = await seconds(one_by_one(studio, asked))
    width, evaluations = sum(rows_of(held, each) for each in asked), int(after - rows)
    packed = bare.seconds(width, evaluations // width)
    if rest := evaluations % width:
        packed += bare.seconds(rest, 1)
    return Round(packed, mixture, busy - before, alone)


async def measure(studio: Studio, metrics: Metrics, bare: Bare, held: Manifest, rounds: int) -> Line:
    """Medians over the rounds, after one for warmth."""
    before = graph_steps(metrics, held.name, "denoise")
    await together(studio, mixed(held, 9900))
    after = graph_steps(metrics, held.name, "denoise")
    steps, evaluations, _ = (late - early for late, early in zip(after, before, strict=True))
    found = [await once(studio, metrics, bare, held, number) for number in range(rounds)]
    packed, mixture, busy, alone = (median(getattr(each, name) for each in found) for name in Round.__slots__)
    return Line(
        sum(rows_of(held, each) for each in mixed(held, 0)),
        int(evaluations),
        evaluations / steps,
        packed,
        mixture,
        busy,
        alone,
        median(each.together / each.packed for each in found),
        median(each.one_by_one / each.together for each in found),
        median(each.one_by_one / each.packed for each in found),
    )


def scaling(bare: Bare, rounds: int) -> list[Scaling]:
    """All sizes in turn in each round; medians."""
    seen = [
        [bare.seconds(batch, _RUNS // batch) / (_RUNS // batch) / batch for batch in BATCHES]
        for _ in range(rounds)
    ]
    columns = zip(BATCHES, zip(*seen, strict=True), strict=True)
    return [
        Scaling(
            batch, median(found) * 1e3, median(its / first[0] for its, first in zip(found, seen, strict=True))
        )
        for batch, found in columns
    ]


def show(name: str, line: Line, sizes: Sequence[Scaling]) -> Iterator[Table]:
    """Both tables."""
    title = f"{name}: 8 requests of 4 to 32 steps, {line.rows} rows, {line.evaluations} evaluations, mean batch {line.mean_batch:.1f}"
    made = table(title, ("", "ms", "together is", "aim"))
    made.add_row("together", f"{line.together * 1e3:.0f}", "", "")
    made.add_row(
        "of that the graph", f"{line.in_graph * 1e3:.0f}", f"{line.together / line.in_graph:.2f} of it", ""
    )
    over = f"{judged(line.over, OVER, least=False)} of it"
    made.add_row("packed", f"{line.packed * 1e3:.0f}", over, f"<= {OVER}")
    faster = f"{judged(line.faster, FASTER)} times faster"
    made.add_row("one after another", f"{line.one_by_one * 1e3:.0f}", faster, f">= {FASTER}")
    made.add_row("the same beside packed", "", f"{line.at_best:.2f} at best", "")
    yield made
    own = table(f"{name}: the graph alone", ("batch", "ms a row", "of one alone"), words=0)
    for each in sizes:
        own.add_row(str(each.batch), f"{each.row_ms:.2f}", f"{each.share:.2f}")
    yield own


def main() -> None:
    options = arguments(__doc__).parse_args()
    package = package_at(options.package)
    held, bare = package.manifest, Bare(package, options.threads)
    with studio_of(package, threads=options.threads) as (studio, metrics):
        line = run(measure(studio, metrics, bare, held, options.rounds))
    sizes = scaling(bare, options.rounds)
    report(list(show(held.name, line, sizes)), [line, *sizes], options.json)


if __name__ == "__main__":
    main()
