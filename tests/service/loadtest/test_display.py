import io

import numpy as np
import pytest
from rich.console import Console

from service.loadtest.display import BINS, distribution, live, summary, verdict
from service.loadtest.plan import Plan
from service.loadtest.record import Record
from service.loadtest.report import series, summarize
from service.loadtest.runner import Tally
from service.loadtest.workload import Task

PLAN = Plan("http://127.0.0.1:8000", Task.TEXT, rate=20.0, requests=200, bounds={"ttft": 150.0})


def streams(count: int) -> list[Record]:
    return [
        Record(
            number, number, number + 1.5, outputs=(number + 0.1 + number / 1e3, number + 1.5), output_tokens=8
        )
        for number in range(count)
    ]


def shown(records: list[Record], width: int) -> str:
    latencies = series(records, scheduled=True)
    figures = summarize(records, PLAN.bounds, latencies, 7)
    console = Console(file=io.StringIO(), width=width)
    console.print(summary(figures, latencies, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_figures_and_names_fit_80_columns() -> None:
    text = shown(streams(100), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for name in (
        "Time to first token",
        "Between tokens",
        "Per output token",
        "End to end",
        "from schedule",
        "Send lag",
    ):
        assert name in text
    for column in ("p50", "p90", "p95", "p99", "max"):
        assert column in text
    assert "100 answered" in text
    assert "0 failed" in text


def test_wide_terminals_are_told_what_each_line_means() -> None:
    text = shown(streams(100), 130)
    assert "from sending to the first piece of text" in text
    assert "how late this load generator itself was" in text
    assert "…" not in text


def test_failures_are_shown_with_their_cause() -> None:
    text = shown([*streams(3), Record(0, 0, 1, error="429 queue_full"), Record(0, 0, 1, error="timeout")], 80)
    assert "2 failed" in text
    assert "429 queue_full" in text
    assert "timeout" in text


def test_nothing_answered_still_reads_well() -> None:
    text = shown([Record(0, 0, 1, error="timeout")], 80)
    assert "0 answered" in text
    assert "nan" not in text


def test_a_late_generator_is_not_kept_quiet() -> None:
    text = shown([Record(0, 0.5, 1.0), Record(0, 0.5, 1.0)], 80)
    assert "it may be the bottleneck" in " ".join(text.split())
    assert "bottleneck" not in shown(streams(10), 80)


@pytest.mark.parametrize("values", [[1.0], [5.0, 5.0, 5.0], [0.0, 1000.0], list(range(100))])
def test_a_distribution_is_one_line_of_bars(values: list[float]) -> None:
    line = distribution(np.array(values, dtype=np.float64))
    assert len(line) == BINS
    assert "█" in line


def test_the_verdict() -> None:
    def judge(good_share: float, completed: int = 10, plan: Plan = PLAN) -> tuple[bool, str]:
        passed, sentence = verdict(plan, {"completed": completed, "good_share": good_share})
        return passed, str(sentence)

    assert judge(0.995) == (True, "Passed: 99.5% of requests had ttft under 150 ms; 99.0% were required.")
    assert judge(0.985) == (False, "Missed: 98.5% of requests had ttft under 150 ms; 99.0% were required.")
    assert judge(0.0, completed=0) == (False, "No request was answered.")
    assert judge(0.0, plan=Plan("http://x", Task.TEXT)) == (True, "")


def test_progress_is_live_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    tally = Tally(records=streams(50), in_flight=3, failed=2, output_tokens=400)
    with live(console, PLAN, "gpt", tally):
        pass
    text = out.getvalue()
    for piece in ("gpt", "Open loop", "25%", "48 answered", "3 in flight", "now p50", "tokens/s", "2 failed"):
        assert piece in text


def test_a_pipe_gets_the_heading_and_no_progress() -> None:
    out = io.StringIO()
    plan = Plan("http://127.0.0.1:8000", Task.IMAGE, concurrency=4, seconds=10.0)
    with live(Console(file=out, width=100), plan, "gan", Tally()):
        pass
    assert "Closed loop: 4 requests in flight at all times; 10 s" in out.getvalue()
    assert "in flight ·" not in out.getvalue()
