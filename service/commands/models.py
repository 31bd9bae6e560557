"""`atelier models`: what a store holds, whether it is sound, and packages from one store to another."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.gate import Gate, broken, parse_gate, read_gate
from deployments.evaluation.record import Evaluation
from model_store.errors import AlreadyPublished, PackageError
from model_store.manifest import Manifest
from model_store.package import Package
from model_store.store import Store, shipped
from service.commands.card import card, count, figure, plain, size, table
from service.evaluation.folder import find
from service.settings import Settings, SettingsError, load, set_environment

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)

StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--store", help="A folder or any fsspec URL.  [default: ATELIER_STORE, else shipped]"),
]
Which: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="The latest version if none is named.")
]
Several: TypeAlias = Annotated[list[str], typer.Argument(metavar="NAME[:VERSION]...")]


@app.command(name="list")
def list_models(store: StoreOption = None) -> None:
    """Show every package of a store: latest version, what it does, how well."""
    with clear_errors():
        source = open_store(store)
        rows = table("model", "versions", "family", ">size", "quality")
        for column in rows.columns[:-1]:  # words that are cut in two are hard to read
            column.no_wrap = True
        broken = [name for name in source.names() if not _add_row(rows, source, name)]
        if not rows.row_count:
            raise PackageError("the store holds no packages")
        console().print(rows)
        if broken:
            raise PackageError(f"broken: {', '.join(broken)}")


def _add_row(rows: Table, source: Store, name: str) -> bool:
    """One package's row. False where its manifest is broken, which the row then says."""
    versions = ", ".join(source.versions(name))
    try:
        manifest = source.manifest(name)
    except PackageError as error:
        rows.add_row(name, versions, "", "", f"[red]✗ {plain(str(error))}[/]")
        return False
    quality = next(
        (figure(key, each) for key, each in manifest.quality.items()), ""
    )  # the first one says most
    rows.add_row(f"[bold]{name}[/]", versions, manifest.family, size(manifest), quality)
    return True


@app.command()
def show(
    model: Which,
    store: StoreOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="The manifest as JSON, and nothing else.")] = False,
) -> None:
    """Show what a package says of itself: graphs, quality, where it comes from, its files."""
    with clear_errors():
        manifest = open_store(store).manifest(*parse_model(model))
        if json:
            typer.echo(manifest.model_dump_json(indent=2))
        else:
            console().print(card(manifest))


@app.command()
def verify(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME[:VERSION]...]", help="All if none is named.")
    ] = None,
    store: StoreOption = None,
    device: Annotated[
        str, typer.Option(help="Where graphs are replayed: auto, cpu, cuda or cuda:N.")
    ] = "cpu",
) -> None:
    """Check every file against its digest, every operator, and replay every graph's golden input."""
    with clear_errors():
        source, replay = open_store(store), _replayer(device)
        wanted = models or [
            f"{name}:{version}" for name in source.names() for version in source.versions(name)
        ]
        if not wanted:
            raise PackageError("the store holds no packages")
        broken = len(wanted) - sum(_is_sound(each, source, replay) for each in wanted)
        if broken:
            raise PackageError(f"{broken} of {count(len(wanted), 'package')} are broken")


def _is_sound(model: str, source: Store, replay: Callable[[Package], None]) -> bool:
    """Verify one package and say what was found."""
    out, began = console(), time.perf_counter()
    try:
        with out.status(f"Verifying {plain(model)}"):
            package = source.open(*parse_model(model))
            replay(package)
    except PackageError as error:
        out.print(f"[red]✗[/] [bold]{plain(model)}[/] {plain(str(error))}", soft_wrap=True)
        return False
    out.print(f"[green]✓[/] {_sound(package.manifest, time.perf_counter() - began)}", soft_wrap=True)
    return True


def _replayer(device: str) -> Callable[[Package], None]:
    """What opens every graph of a package. ONNX Runtime is imported here: nothing else of this group needs it.

    Raises DeviceUnavailable.
    """
    set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
    from model_store.session import choose_device, open_graph

    place = choose_device(device)

    def replay(package: Package) -> None:
        for name in package.manifest.graphs:
            open_graph(package, name, device=place)

    return replay


def _sound(manifest: Manifest, seconds: float) -> str:
    files, graphs = len(manifest.files), len(manifest.graphs)
    return (
        f"[bold]{manifest.name}:{manifest.version}[/] {count(files, 'file')}, {size(manifest)}, "
        f"{count(graphs, 'graph')} replayed [dim]{seconds:.2f} s[/]"
    )


@app.command()
def pull(
    models: Several,
    source: Annotated[str, typer.Option("--from", help="Store to take from: a folder or any fsspec URL.")],
    target: Annotated[
        str | None, typer.Option("--to", help="Store to add to.  [default: ATELIER_STORE]")
    ] = None,
) -> None:
    """Fetch packages from another store, verified before they count."""
    with clear_errors():
        settings = load()
        into = target or settings.store
        if not into:
            raise PackageError("say where to put the packages: --to, or ATELIER_STORE")
        _copy(models, open_store(source), open_store(into))


@app.command()
def push(
    models: Several,
    target: Annotated[str, typer.Option("--to", help="Store to add to: a folder or any fsspec URL.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Store to take from.  [default: ATELIER_STORE, else shipped]")
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with what a version must reach to follow the store's latest, beside the store's own NAME/gate.yaml."
        ),
    ] = None,
    evaluations: Annotated[
        Path, typer.Option(help="Where `atelier evaluate` has written to, for gates.")
    ] = Path("evaluations"),
) -> None:
    """Add packages to another store; others see a version when all of it is there."""
    with clear_errors():
        given, taker = open_store(source), open_store(target)
        asked = [read_gate(gate)] if gate else []
        for each in models:  # all of them before any is added
            name, version = parse_model(each)
            for rules in asked + _gates(taker, name):
                _pass(given.manifest(name, version), taker, rules, evaluations)
        _copy(models, given, taker)


def _gates(target: Store, name: str) -> list[Gate]:
    """The target's own for this name, if it has one."""
    raw = target.gate(name)
    return [] if raw is None else [parse_gate(raw, f"of {name} in {target.url}")]


def _pass(manifest: Manifest, target: Store, gate: Gate, evaluations: Path) -> None:
    """Raises EvaluationError where a version may not follow the latest of the target."""
    versions = target.versions(manifest.name)
    current = target.manifest(manifest.name, versions[-1]) if versions else None
    new = _evaluation(manifest, evaluations)
    compared = current is not None and any(rule.tolerance is not None for rule in gate.figures.values())
    old = _evaluation(current, evaluations) if current and compared else None
    reasons = broken(gate, new, old)
    if reasons:
        raise EvaluationError(
            f"{manifest.name}:{manifest.version} does not pass the gate: {'; '.join(reasons)}"
        )


def _evaluation(manifest: Manifest, folder: Path) -> Evaluation:
    """Of this very package and no other under its name."""
    found = find(folder, manifest.name, manifest.version)
    if found.model.digest != manifest.digest:
        raise EvaluationError(f"the evaluation of {manifest.name}:{manifest.version} is of another package")
    return found


def _copy(models: Sequence[str], source: Store, target: Store) -> None:
    out = console()
    for each in models:
        with out.status(f"Copying {plain(each)}"):
            package = source.open(*parse_model(each))
            added = _add(package, target)
        what = f"[bold]{package.manifest.name}:{package.manifest.version}[/] ({size(package.manifest)})"
        out.print(
            f"[green]✓[/] {what} {'added to' if added else 'is already in'} {plain(target.url)}",
            soft_wrap=True,
        )


def _add(package: Package, target: Store) -> bool:
    """Publish; False where the very same package is there already. Raises AlreadyPublished for another one."""
    try:
        target.publish(package.folder)
    except AlreadyPublished:
        if target.manifest(package.manifest.name, package.manifest.version).digest != package.manifest.digest:
            raise
        return False
    return True


# -- stores and errors ------------------------------------------------------------------------------------------------


def console(**where: Any) -> Console:
    """A console that colours what we colour and nothing else."""
    return Console(highlight=False, **where)


def open_store(address: str | None) -> Store:
    """A store, or the one of the settings, or that of the shipped packages."""
    settings: Settings = load()
    cache = Path(settings.cache) if settings.cache else None
    return Store(address or settings.store or shipped(), cache)


def parse_model(model: str) -> tuple[str, str | None]:
    """Name and version of `name` or `name:version`."""
    name, colon, version = model.partition(":")
    return name, version if colon else None


@contextmanager
def clear_errors() -> Iterator[None]:
    """What cannot be done is one sentence and exit code 1."""
    try:
        yield
    except (PackageError, SettingsError, EvaluationError) as error:
        console(stderr=True).print(f"[red]✗[/] {plain(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
