"""What the terminal shows of a load test: a live line or two while it runs, then the tables that explain it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.loadtest.plan import Plan
from service.loadtest.report import Series
from service.loadtest.runner import Tally

# The display shares the interpreter with the load; one frame costs it about a millisecond.
FRAMES_PER_SECOND: Final = 2
RECENT: Final = 1000  # the live percentiles are those of the last answers: what the server does now
BARS: Final = "▁▂▃▄▅▆▇█"
BINS: Final = 14
COLUMNS: Final = ("p50", "p90", "p95", "p99", "max")
ROWS: Final = {
    "ttft": ("Time to first token", "from sending to the first piece of text"),
    "itl": ("Between tokens", "each gap between two pieces of a stream"),
    "tpot": ("Per output token", "mean of one answer, after its first token"),
    "e2el": ("End to end", "from sending to the last byte of output"),
    "e2el_from_schedule": ("  from schedule", "the same, from when it was due"),
    "send_lag": ("Send lag", "how late this load generator itself was"),
}
LAG_WARNING_MS: Final = 10.0
EXPLAINED_WIDTH: Final = 122


@contextmanager
def live(console: Console, plan: Plan, model: str, tally: Tally) -> Iterator[None]:
    """Say what is measured, then show progress while the block runs (not where the console is no terminal)."""
    console.print(heading(plan, model))
    if not console.is_terminal:
        yield
        return
    frame = _Frame(plan, tally)
    with Live(
        get_renderable=frame.render, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True
    ):
        yield


class _Frame:
    def __init__(self, plan: Plan, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally

    def render(self) -> RenderableType:
        tally, elapsed = self._tally, self._tally.elapsed
        answered = len(tally.records) - tally.failed
        figures = [f"{elapsed:.0f} s", f"{answered:,} answered", f"{tally.in_flight} in flight"]
        figures.append(f"{answered / elapsed:,.1f} requests/s")
        latencies = [record.latency * 1e3 for record in tally.records[-RECENT:] if record.error is None]
        if latencies:
            p50, p99 = np.percentile(latencies, (50, 99))
            figures.append(f"now p50 {_ms(p50)} · p99 {_ms(p99)} ms")
        if tally.output_tokens:
            figures.append(f"{tally.output_tokens / elapsed:,.0f} tokens/s")
        line = Text(" · ".join(figures))
        if tally.failed:
            line.append(f" · {tally.failed:,} failed", style="bold red")
        return Group(self._bar(elapsed), line)

    def _bar(self, elapsed: float) -> RenderableType:
        by_time = elapsed / self._plan.seconds if self._plan.seconds else 0.0
        by_count = len(self._tally.records) / self._plan.requests if self._plan.requests else 0.0
        share = min(1.0, max(by_time, by_count))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=share, width=60), f"{share:4.0%}")
        return bar


def heading(plan: Plan, model: str) -> RenderableType:
    """Describe in two lines what is measured and how."""
    title = Text.assemble((model, "bold cyan"), " · ", plan.task.value, " · ", (plan.url, "underline"))
    if plan.rate is not None:
        how = f"Open loop: {plan.rate:g} requests/s on average, Poisson arrivals, sent on time however slow the answers"
    else:
        how = f"Closed loop: {plan.concurrency} requests in flight at all times"
    bounds = [f"{plan.requests:,} requests"] if plan.requests else []
    bounds += [f"{plan.seconds:g} s"] if plan.seconds else []
    return Group(title, Text(f"{how}; {' or '.join(bounds)}, seed {plan.seed}", style="dim"))


def summary(result: Mapping[str, Any], latencies: Mapping[str, Series], width: int) -> RenderableType:
    """Show throughput, latencies (explained where the terminal is wide enough), and what failed and why."""
    parts: list[RenderableType] = [Padding(_throughput(result), (1, 0, 0, 0))]
    if latencies:
        parts.append(Padding(_latency(result, latencies, explain=width >= EXPLAINED_WIDTH), (1, 0, 0, 0)))
    if result["error_counts"]:
        parts.append(Padding(_errors(result["error_counts"]), (1, 0, 0, 0)))
    lag = result.get("p99_send_lag_ms", 0.0)
    if lag > LAG_WARNING_MS:
        parts.append(
            Text(
                f"This load generator was up to {lag:.0f} ms late (p99 of send lag): it may be the bottleneck, so trust "
                "the latencies from schedule less.",
                style="yellow",
            )
        )
    return Group(*parts)


def verdict(plan: Plan, result: Mapping[str, Any]) -> tuple[bool, RenderableType]:
    """Whether the run passed, and the sentence that says so."""
    if not result["completed"]:
        return False, Text("No request was answered.", style="bold red")
    if not plan.bounds:
        return True, ""
    bounds = ", ".join(f"{name} under {bound:g} ms" for name, bound in plan.bounds.items())
    share = result["good_share"]
    passed = bool(share >= plan.attain)
    sentence = f"{share:.1%} of requests had {bounds}; {plan.attain:.1%} were required."
    return passed, Text(
        ("Passed: " if passed else "Missed: ") + sentence, style="bold green" if passed else "bold red"
    )


def _throughput(result: Mapping[str, Any]) -> RenderableType:
    rates = {
        "requests": result["request_throughput"],
        "tokens": result["output_throughput"],
        "pictures": result["image_throughput"],
        "items": result["item_throughput"],
        "good requests": result.get("request_goodput", 0.0),
    }
    line = Text("Per second  ")
    line.append(
        "   ".join(f"{value:,.1f} {name}" for name, value in rates.items() if value) or "nothing", "bold"
    )
    counts = Text(f"In {result['duration']:,.1f} s  ")
    counts.append(f"{result['completed']:,} answered", "bold green" if result["completed"] else "bold red")
    counts.append(f"   {result['failed']:,} failed", "bold red" if result["failed"] else "dim")
    counts.append(f"   at most {result['max_concurrent_requests']:,} in flight", "dim")
    return Group(line, counts)


def _latency(result: Mapping[str, Any], latencies: Mapping[str, Series], *, explain: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("Milliseconds", no_wrap=True, min_width=19)
    for key in COLUMNS:
        table.add_column(key, justify="right", no_wrap=True, min_width=6)
    table.add_column("p1 to p99", no_wrap=True, min_width=BINS, style="cyan")
    if explain:
        table.add_column("", style="dim", no_wrap=True)
    for name, (title, meaning) in ROWS.items():
        if name in latencies:
            figures = [_ms(result[f"{key}_{name}_ms"]) for key in COLUMNS]
            table.add_row(title, *figures, distribution(latencies[name]), *([meaning] if explain else []))
    return table


def distribution(values: Series) -> str:
    """Draw where the values lie, from the 1st to the 99th percentile, as a line of bars."""
    low, high = np.percentile(values, (1, 99))
    counts, _ = np.histogram(
        values.clip(low, high), bins=BINS, range=(low, high) if high > low else (low - 1, low + 1)
    )
    top = counts.max()
    return "".join(" " if not count else BARS[int((len(BARS) - 1) * count / top)] for count in counts)


def _errors(counts: Mapping[str, int]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("Failed", justify="right", style="red")
    table.add_column("Why")
    for error, count in islice(counts.items(), 10):
        table.add_row(f"{count:,}", error)
    return table


def _ms(value: float) -> str:
    digits = sum(abs(value) < limit for limit in (10, 100))  # three significant places or more
    return f"{value:,.{digits}f}"
