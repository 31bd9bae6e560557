"""What sharing a batch is worth: tokens per second and mean batch size with 1 and 8 streams at once, in process.

    python -m tests.load.text_streams [--large] [--store URL] [--model NAME] [--streams 1 8 16] [--tokens 192] [--json FILE]

No HTTP and no Ray: this is the engine alone, as a host's replica runs it. Every stream asks again as soon as its answer
is complete. `--large` measures a Transformer of 51 M random weights instead, made on the spot. The batch is that of the engine's own metrics: rows that shared one decode step, on average.
"""

import argparse
import asyncio
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table
from uvicorn.loops.auto import auto_loop_factory

from deployments.config import HostConfig
from deployments.messages import Complete
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from service.loadtest.environment import describe
from tests.load import large

PROMPTS = ("ROMEO:\n", "JULIET:\n", "First Citizen:\n", "KING RICHARD III:\n")


@dataclass(frozen=True, slots=True)
class Line:
    """One number of streams: medians over the rounds."""

    streams: int
    tokens_per_second: float
    of_first: float
    mean_batch: float
    step_ms: float


async def stream(studio: Studio, model: str, number: int, *, tokens: int, answers: int) -> int:
    """Read so many answers one after the other; return the tokens that came."""
    count = 0
    for answer in range(answers):
        request = Complete(
            model,
            (PROMPTS[number % len(PROMPTS)],),
            max_tokens=tokens,
            temperature=0.8,
            seed=1000 * number + answer,
        )
        async for delta in studio.stream(request):
            count += len(delta.token_ids)
    return count


def graph_steps(metrics: Metrics, model: str, graph: str = "decode") -> tuple[float, float, float]:
    """Steps so far, rows in them, seconds in them."""
    labels = {"model": model, "graph": graph}
    names = ("atelier_batch_rows_count", "atelier_batch_rows_sum", "atelier_step_seconds_sum")
    steps, rows, seconds = (metrics.registry.get_sample_value(name, labels) or 0.0 for name in names)
    return steps, rows, seconds


async def measure(
    studio: Studio, metrics: Metrics, model: str, streams: int, *, tokens: int, answers: int
) -> Line:
    """One round."""
    before = graph_steps(metrics, model)
    began = perf_counter()
    counts = await asyncio.gather(
        *(stream(studio, model, number, tokens=tokens, answers=answers) for number in range(streams))
    )
    seconds = perf_counter() - began
    steps, rows, busy = (
        after - then for after, then in zip(graph_steps(metrics, model), before, strict=True)
    )
    return Line(streams, sum(counts) / seconds, 0.0, rows / steps, busy / steps * 1e3)


async def run(studio: Studio, metrics: Metrics, options: argparse.Namespace) -> list[Line]:
    """All numbers of streams in turn in each round; medians."""
    await stream(studio, options.model, 0, tokens=options.tokens, answers=1)
    seen: dict[int, list[Line]] = {streams: [] for streams in options.streams}
    for _ in range(options.rounds):
        for streams, lines in seen.items():
            line = await measure(
                studio, metrics, options.model, streams, tokens=options.tokens, answers=options.answers
            )
            lines.append(line)
    first = median(line.tokens_per_second for line in seen[options.streams[0]])
    return [_median(lines, first) for lines in seen.values()]


def _median(lines: list[Line], first: float) -> Line:
    rate = median(line.tokens_per_second for line in lines)
    return Line(
        lines[0].streams,
        rate,
        rate / first,
        median(line.mean_batch for line in lines),
        median(line.step_ms for line in lines),
    )


def show(lines: list[Line], model: str, console: Console) -> None:
    """A table, one line for each number of streams."""
    table = Table(
        title=f"{model}: streams that share a batch", title_justify="left", box=None, padding=(0, 1)
    )
    for column in ("streams", "tokens/s", f"of {lines[0].streams}", "mean batch", "step ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        figures = (
            f"{line.tokens_per_second:,.0f}",
            f"{line.of_first:.2f}",
            f"{line.mean_batch:.2f}",
            f"{line.step_ms:.2f}",
        )
        table.add_row(str(line.streams), *figures)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="package store (default: the shipped packages)")
    parser.add_argument("--model", default="shakespeare-gpt")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=192, help="in one answer")
    parser.add_argument("--answers", type=int, default=3, help="of each stream in one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument(
        "--large", action="store_true", help="a model of 51 M random weights, made for this run"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        if options.large:
            large.package(Path(store))
            options.store, options.model = store, large.NAME
        _report(options)


def _report(options: argparse.Namespace) -> None:
    metrics = Metrics(CollectorRegistry())
    fields = {"models": [options.model], "store": options.store, "slots": max(options.streams)}
    config = HostConfig.model_validate(fields | {"threads": options.threads})
    studio = open_studio(config, metrics)
    try:
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            lines = runner.run(run(studio, metrics, options))
    finally:
        studio.close()
    show(lines, options.model, Console(highlight=False))
    if options.json:
        figures = {
            "environment": describe(),
            "model": options.model,
            "lines": [asdict(line) for line in lines],
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
