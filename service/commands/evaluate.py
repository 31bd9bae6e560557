"""`atelier evaluate` and `atelier compare`: options in, tables and files out. What is measured is `deployments.evaluation`'s."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import FILE, Evaluation, read
from service.commands.card import plain
from service.commands.models import clear_errors, console, open_store, parse_model
from service.evaluation.folder import find
from service.settings import set_environment

FOLDER: Final = Path("evaluations")
_EXTRA: Final = frozenset({"sklearn", "scipy", "sacrebleu"})


def evaluate(  # noqa: PLR0917 - each argument is one option of the command
    model: Annotated[
        str, typer.Argument(metavar="NAME[:VERSION]", help="The latest version if none is named.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Held-out data: a folder of pictures (good/ and defects, ground_truth/ with masks; classes, or metadata.jsonl with "
            "captions), .npz (X, y, masks, prompts), .txt, .jsonl (text, or prompt and target), or .csv (a column for each feature or "
            "channel, and labels; text and label, or a, b and score, for encoders); a folder of .csv files, or of the Numenta benchmark (data/, labels/), for series."
        ),
    ],
    store: Annotated[
        str | None, typer.Option(help="A folder or any fsspec URL (default: ATELIER_STORE, else shipped).")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where NAME/VERSION/evaluation.json and index.html are written.")
    ] = FOLDER,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:VERSION]",
            help="Package whose latents drawn pictures are compared with the data in.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take at most so many items, always the same ones.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=8, help="Pictures to draw; at most 64 of them as texts to continue.")
    ] = 1000,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one answer at most.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pictures and texts.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="CSV column with 0 for normal and 1 for anomalies (else label or anomaly, if there).",
        ),
    ] = None,
) -> None:
    """Measure a package on held-out data and write its figures and a page.

    What is measured follows from the package and the data:
    AUROC, AUPR and F1 with labels, AUPRO with masks; PSNR and SSIM of reconstructions;
    error of missing values filled in; NAB scores of series; nearest neighbours of encoders;
    Frechet distance, coverage and Vendi score of drawings; bits per byte of documents;
    BLEU and chrF of answers; the speed on this machine. Each has a 95 % interval.
    """
    with clear_errors(), _with_extra():
        set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
        from deployments.evaluation.evaluate import Plan
        from deployments.evaluation.evaluate import evaluate as measure
        from service.evaluation.display import figures, outcome
        from service.evaluation.page import evaluation_page

        shown, source = console(), open_store(store)
        package = source.open(*parse_model(model))
        net = source.open(*parse_model(features)) if features else None
        plan = Plan(data, net, limit, samples, max_tokens, seed, device, label)
        with _progress(shown) as report, _without_drift():
            record, found = measure(package, plan, report)
        folder = out / record.model.name / record.model.version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / "index.html").write_text(evaluation_page(record, found), encoding="utf-8")
        shown.print(figures(record, shown.width))
        shown.print(outcome(folder), soft_wrap=True)


def compare(
    new: Annotated[
        str, typer.Argument(metavar="A", help="NAME[:VERSION] that was evaluated, or an evaluation.json.")
    ],
    old: Annotated[str, typer.Argument(metavar="B", help="The same, of what A is judged by.")],
    evaluations: Annotated[Path, typer.Option(help="Where `atelier evaluate` has written to.")] = FOLDER,
    gate: Annotated[
        Path | None, typer.Option(help="YAML file with what A must reach; exit status 1 where it does not.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write the comparison as an HTML page.")] = None,
) -> None:
    """Show two evaluations side by side, with 95 % intervals of the differences.

    They are paired where both were measured on the same items.
    """
    with clear_errors(), _with_extra():
        from deployments.evaluation.gate import broken, read_gate
        from service.evaluation.display import differences
        from service.evaluation.page import comparison_page

        shown = console()
        first, second = _found(new, evaluations), _found(old, evaluations)
        shown.print(differences(first, second, shown.width))
        if page:
            page.write_text(comparison_page(first, second), encoding="utf-8")
            shown.print(f"[green]✓[/] Wrote {plain(str(page))}", soft_wrap=True)
        _judge(shown, broken(read_gate(gate), first, second) if gate else ())


def _found(model: str, folder: Path) -> Evaluation:
    if model.endswith(".json"):
        return read(Path(model))
    return find(folder, *parse_model(model))


def _judge(shown: Console, reasons: Sequence[str]) -> None:
    for reason in reasons:
        shown.print(f"[red]✗[/] {plain(reason)}", soft_wrap=True)
    if reasons:
        raise typer.Exit(1)


@contextmanager
def _with_extra() -> Iterator[None]:
    """Name the extra where what measures is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise EvaluationError("evaluating needs more packages: pip install 'atelier[evaluate]'") from None


@contextmanager
def _without_drift() -> Iterator[None]:
    """No warning that held-out data drifts from a calibration: anomalies do, and figures tell it."""
    logger = logging.getLogger("deployments.reconstruction.drift")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _progress(shown: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A line with a bar that says what is being done; gone when it is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("Starting", total=None)

        def report(doing: str, done: int, count: int) -> None:
            bar.update(task, description=doing, completed=done, total=count or None)

        yield report
