"""What `export` and `train` show while a package is made: finished steps with their times, then a table of the comparison."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from model_store.errors import PackageError
from model_store.export.draft import Draft
from model_store.export.errors import ExportError
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.manifest import Manifest, Measure
from model_store.store import Store
from service.settings import SettingsError, load, set_environment

INTERRUPTED: Final = 130  # what a shell reports of a command that Ctrl-C ended


@dataclass
class Steps:
    """A line for every finished step, a spinner for the one that runs."""

    console: Console
    clock: Callable[[], float] = time.perf_counter
    figures: list[Figure] = field(default_factory=list)
    _current: str = ""
    _began: float = 0.0
    _status: Status | None = None

    def __enter__(self) -> Self:
        self._status = self.console.status("")
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()
        self._finish("[red]✗[/]" if error else "[green]✓[/]")

    def step(self, text: str) -> None:
        """The step before has finished and this one begins."""
        self._finish("[green]✓[/]")
        self._current, self._began = text, self.clock()
        self.stage("")

    def stage(self, text: str) -> None:
        """What the current step is at: shown beside the spinner, then gone."""
        if self._status:
            self._status.update(escape(f"{self._current}: {text}" if text else self._current))

    @property
    def witness(self) -> Witness:
        """Who `publish` tells: steps become lines, figures are kept for the table."""
        return Witness(step=self.step, stage=self.stage, figure=self.figures.append)

    def _finish(self, mark: str) -> None:
        if self._current:
            seconds = self.clock() - self._began
            self.console.print(f"{mark} {escape(self._current)} [dim]{seconds:.1f} s[/]", soft_wrap=True)
        self._current = ""


@contextmanager
def clear_errors(console: Console) -> Iterator[None]:
    """End the command with one sentence, and the last lines of the cause if there are any, instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("[red]✗[/] Interrupted; nothing was published.")
        raise typer.Exit(INTERRUPTED) from None
    except (ExportError, PackageError, SettingsError) as error:
        console.print(f"[red]✗[/] {escape(str(error))}", soft_wrap=True)
        detail = error.detail if isinstance(error, ExportError) else ""
        if detail:
            console.print(f"[dim]{escape(detail)}[/]", soft_wrap=True)
        raise typer.Exit(1) from None


def store_address(given: str | None, name: str) -> str:
    """Where to publish: as asked, else the store of the settings. Raises ExportError where neither says, or versions pass a gate.

    What is only about to be made has not been evaluated, and it is better to say so before the work than after it.
    """
    address = given or load().store
    if not address:
        raise ExportError("say where to publish: --store FOLDER, any fsspec URL, or ATELIER_STORE")
    if Store(address).gate(name) is not None:
        raise ExportError(
            f"new versions of {name} pass a gate in {address}: publish into another store, `atelier evaluate` it there, "
            f"then `atelier models push {name} --to {address}`"
        )
    return address


def publish(draft: Draft, address: str, steps: Steps, calibration: Path | None = None) -> Manifest:
    """`model_store.export.publish`, watched, with scores calibrated by a file of items, if there is one.

    ONNX Runtime is imported here: help and refusals need none of it.
    """
    set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
    from model_store.export.detectors import calibrated
    from model_store.export.publish import publish as export_and_publish

    refine = calibrated(draft, calibration, steps.witness) if calibration else None
    return export_and_publish(draft, address, steps.witness, refine)


def parity_table(
    figures: Iterable[Figure], title: str = "ONNX Runtime beside torch", error: str = "relative error"
) -> Table:
    """Each output's worst error beside the largest allowed."""
    table = Table("graph", "output", title=title, title_justify="left")
    for heading in ("cases", error, "allowed"):
        table.add_column(heading, justify="right")
    for each in figures:
        found, limit = (f"{each.error:.1e}", f"{each.limit:.0e}") if each.limit else ("equal", "equal")
        table.add_row(escape(each.graph), escape(each.output), str(each.cases), found, limit)
    return table


def quality_table(quality: dict[str, Measure]) -> Table:
    """Each figure measured on held-out data with its baseline."""
    table = Table("figure", title="Quality on held-out data", title_justify="left")
    for heading in ("value", "baseline"):
        table.add_column(heading, justify="right")
    for heading in ("baseline is", "data"):
        table.add_column(heading)
    for name, each in quality.items():
        baseline = "" if each.baseline is None else f"{each.baseline:.4g}"
        arrow = "↑" if each.higher_is_better else "↓"
        table.add_row(
            f"{escape(name)} {arrow}", f"{each.value:.4g}", baseline, each.baseline_name or "", each.data
        )
    return table


def published(manifest: Manifest, store: str) -> str:
    """The closing line."""
    size = sum(file.bytes for file in manifest.files.values())
    what = f"{manifest.name} version {manifest.version}"
    return f"[green]✓[/] Published [bold]{escape(what)}[/] ({decimal(size)}) to {escape(store)}"
