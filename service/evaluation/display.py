"""An evaluation in a terminal. Writes nothing."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from deployments.evaluation.estimates import difference
from deployments.evaluation.record import Evaluation
from service.commands.card import plain, table
from service.evaluation.numbers import arrow, common, shown, spread, title, verdict

_EXPLAINED = 110  # columns that leave room for what a figure is
_COLOURS = {"better": "green", "worse": "red", "": "dim"}


def figures(record: Evaluation, width: int) -> RenderableType:
    """Every figure with its interval, and what it is where the terminal is wide enough."""
    model, data = record.model, record.data
    heading = f"[bold]{model.name}:{model.version}[/] on {plain(data.name)}, {data.items:,} items"
    explained = width >= _EXPLAINED
    rows = table("figure", ">value", ">95 % interval", *(["what it is"] if explained else []))
    for name, each in record.figures.items():
        about = [f"[dim]{plain(each.about)}[/]"] if explained else []
        value = f"[bold]{shown(each.value, each.unit)}[/] {arrow(each) or ' '}"
        rows.add_row(plain(title(name)), value, spread(each), *about)
    return Group(heading, rows)


def differences(new: Evaluation, old: Evaluation) -> RenderableType:
    """The figures that both have, and by how much they differ."""
    names = [f"{each.model.name}:{each.model.version}" for each in (new, old)]
    rows: Table = table("figure", f">{names[0]}", f">{names[1]}", ">difference", ">95 % interval", "")
    unpaired = False
    for name in common(new.figures, old.figures):
        a, b = new.figures[name], old.figures[name]
        change = difference(a, b)
        judged = verdict(a, change)
        unpaired |= not change.paired
        rows.add_row(
            f"{plain(title(name))} {arrow(a)}",
            shown(a.value, a.unit),
            shown(b.value, b.unit),
            f"{change.value:+.3g}{'' if change.paired else ' *'}",
            f"{change.low:+.3g} to {change.high:+.3g}",
            f"[{_COLOURS[judged]}]{judged or 'no clear difference'}[/]",
        )
    notes = ["[dim]* unpaired: not of the same draws of the same items[/]"] if unpaired else []
    if new.data.digest != old.data.digest:
        notes.append(
            f"[yellow]They were measured on different data: {plain(new.data.name)} and {plain(old.data.name)}.[/]"
        )
    return Group(rows, *notes)


def outcome(folder: Path) -> str:
    """The closing line."""
    return (
        f"[green]✓[/] Wrote {plain(str(folder / 'evaluation.json'))} and {plain(str(folder / 'index.html'))}"
    )
