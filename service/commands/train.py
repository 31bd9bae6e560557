"""`atelier train`: runs a reference model's recipe with its figures in view, then publishes what it learned."""

import importlib
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Protocol, Self, TypeAlias, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from model_store import zoo
from model_store.export import draft as drafts
from model_store.export import graph_process
from model_store.export.errors import ExportError
from service.commands.publishing import (
    Steps,
    clear_errors,
    parity_table,
    publish,
    published,
    quality_table,
    store_address,
)

Name: TypeAlias = Annotated[str, typer.Argument(help=f"One of {', '.join(zoo.NAMES)}.")]
Data: TypeAlias = Annotated[
    Path,
    typer.Option(
        help="Folder that holds one folder per data set.", envvar="ATELIER_DATA", exists=True, file_okay=False
    ),
]
StoreOption: TypeAlias = Annotated[str | None, typer.Option("--store", help="Folder or any fsspec URL.")]
Seed: TypeAlias = Annotated[int | None, typer.Option(min=0, help="Another seed than the recipe's own.")]


class Reference(Protocol):
    """What every module of `model_store.zoo` named in `zoo.NAMES` offers."""

    Recipe: Any

    def train(self, data: Path, progress: drafts.Progress, recipe: Any) -> Any:
        """Learn from the data; the result is the module's own business."""
        ...

    def draft(
        self, trained: Any, data: Path, work: Path, progress: drafts.Progress, recipe: Any
    ) -> drafts.Draft:
        """Measure what was learned, write its weights into `work`, and describe the package."""
        ...


def train(name: Name, data: Data, store: StoreOption = None, seed: Seed = None) -> None:
    """Train a reference model on public data and publish its package."""
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with clear_errors(errors):
        address = store_address(store, name)
        reference = find(name)
        with tempfile.TemporaryDirectory(prefix="atelier-train-") as work:
            draft = learn(reference, data, Path(work), seed, console)
            with Steps(console) as steps:
                manifest = publish(draft, address, steps)
        console.print(parity_table(steps.figures))
        console.print(quality_table(manifest.quality))
        console.print(published(manifest, address), soft_wrap=True)


def find(name: str) -> Reference:
    """The module of a reference model. Raises ExportError for an unknown name, ToolsMissing without torch."""
    if name not in zoo.NAMES:
        raise ExportError(f"there is no reference model {name!r}; there are {', '.join(zoo.NAMES)}")
    graph_process.check_tools()
    return cast("Reference", importlib.import_module(f"{zoo.__name__}.{name.replace('-', '_')}"))


def learn(reference: Reference, data: Path, work: Path, seed: int | None, console: Console) -> drafts.Draft:
    """Train and measure with a progress bar; the draft says how long the training took. Raises ExportError."""
    recipe = reference.Recipe() if seed is None else replace(reference.Recipe(), seed=seed)
    began = time.perf_counter()
    with plain_failures(), Bar(console, "train") as bar:
        trained = reference.train(data, bar.update, recipe)
    seconds = round(time.perf_counter() - began, 1)
    with plain_failures(), Bar(console, "measure") as bar:
        draft = reference.draft(trained, data, work, bar.update, recipe)
    return replace(draft, provenance=draft.provenance.model_copy(update={"seconds": seconds}))


@contextmanager
def plain_failures() -> Iterator[None]:
    """Data that is missing or wrong is a sentence for the user; any other ValueError keeps its trace."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"the data cannot be read: {error}") from error
    except ValueError as error:
        trace = traceback.format_exc().strip() if type(error) is ValueError else ""
        raise ExportError(f"the recipe stopped: {error}", detail=trace) from error


class Bar:
    """A progress bar with the recipe's latest figures beside it; what a recipe counts may start anew."""

    def __init__(self, console: Console, title: str) -> None:
        self._figures: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(title, total=None, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """What recipes call after each step. Figures that were not measured in this step keep their last value."""
        self._figures |= figures
        text = "  ".join(f"{escape(name)} {value:.4g}" for name, value in self._figures.items())
        self._progress.update(self._task, completed=done, total=total, figures=text)
