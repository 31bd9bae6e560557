"""What a person sees while a package is made, and when it is not."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console, RenderableType

from model_store.errors import StoreUnavailable
from model_store.export.errors import ExportError, GraphFailed
from model_store.export.parity import Figure
from model_store.manifest import Measure
from service.commands.publishing import (
    INTERRUPTED,
    Steps,
    clear_errors,
    parity_table,
    quality_table,
    store_address,
)


def console() -> tuple[Console, Callable[[], str]]:
    out = io.StringIO()
    return Console(file=out, width=120, highlight=False), out.getvalue


def shown(renderable: RenderableType) -> str:
    target, text = console()
    target.print(renderable)
    return text()


def test_finished_steps_stay_with_their_times() -> None:
    target, text = console()
    clock = itertools.count(0.0, 1.5)

    with Steps(target, lambda: next(clock)) as steps:
        steps.step("export [x]")
        steps.stage("torch")
        steps.witness.step("publish")

    assert text().splitlines() == ["✓ export [x] 1.5 s", "✓ publish 1.5 s"]


def test_the_step_that_failed_is_marked() -> None:
    target, text = console()

    def work() -> None:
        with Steps(target, lambda: 0.0) as steps:
            steps.step("one")
            steps.step("two")
            raise ExportError("no")

    with pytest.raises(ExportError):
        work()

    assert text().splitlines() == ["✓ one 0.0 s", "✗ two 0.0 s"]


def test_figures_are_kept_for_the_table() -> None:
    steps = Steps(console()[0])
    figure = Figure("g", "o", 2, 1e-7, 1e-4)

    steps.witness.figure(figure)

    assert steps.figures == [figure]


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (ExportError("no [x]"), 1, ["✗ no [x]"]),
        (GraphFailed("no", detail="line [1]\nline 2"), 1, ["✗ no", "line [1]", "line 2"]),
        (StoreUnavailable("the store is away"), 1, ["✗ the store is away"]),
        (KeyboardInterrupt(), INTERRUPTED, ["✗ Interrupted; nothing was published."]),
    ],
)
def test_a_refusal_is_a_sentence_and_a_status(error: BaseException, status: int, lines: list[str]) -> None:
    target, text = console()

    with pytest.raises(typer.Exit) as caught, clear_errors(target):
        raise error

    assert caught.value.exit_code == status
    assert text().splitlines() == lines


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), clear_errors(console()[0]):
        raise ZeroDivisionError


def test_the_table_shows_each_error_beside_its_limit() -> None:
    text = shown(
        parity_table([Figure("step", "logprob", 3, 1.25e-7, 1e-4), Figure("step", "token", 3, 0.0, 0.0)])
    )

    assert [line.split("│")[2:6] for line in text.splitlines() if "step" in line] == [
        [" logprob ", "     3 ", "        1.2e-07 ", "   1e-04 "],
        [" token   ", "     3 ", "          equal ", "   equal "],
    ]


def test_the_quality_stands_beside_its_baseline() -> None:
    measure = Measure(
        value=1.5, higher_is_better=False, data="held-out tenth", baseline=1.47, baseline_name="nanoGPT"
    )

    text = shown(quality_table({"nats": measure, "alone": Measure(value=2, higher_is_better=True, data="d")}))

    assert all(word in text for word in ("nats ↓", "1.5", "1.47", "nanoGPT", "held-out tenth", "alone ↑"))


def test_the_store_is_the_one_asked_for_or_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ATELIER_STORE", raising=False)
    assert store_address(str(tmp_path), "a") == str(tmp_path)
    with pytest.raises(ExportError, match="say where to publish: --store"):
        store_address(None, "a")

    monkeypatch.setenv("ATELIER_STORE", "memory://models")
    assert store_address(None, "a") == "memory://models"


def test_what_passes_a_gate_is_pushed_and_not_published_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/gate.yaml").write_text("figures: {auroc: {at_least: 0.9}}")
    with pytest.raises(ExportError, match=r"new versions of a pass a gate in .*`atelier models push a --to "):
        store_address(str(tmp_path), "a")
    assert store_address(str(tmp_path), "b") == str(tmp_path)
