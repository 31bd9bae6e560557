"""An evaluation in a terminal. Writes nothing."""

from pathlib import Path

from rich.console import Group, RenderableType

from deployments.evaluation.estimates import difference
from deployments.evaluation.record import Evaluation
from service.commands.card import plain, table
from service.evaluation.numbers import arrow, common, shown, signed, spread, title, verdict

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


def differences(new: Evaluation, old: Evaluation, width: int) -> RenderableType:
    """The figures that both have, and by how much they differ."""
    wide = width >= _EXPLAINED
    heading = "\n".join(
        f"[bold]{letter}[/] {each.model.name}:{each.model.version} [dim]on {plain(each.data.name)}[/]"
        for letter, each in (("A", new), ("B", old))
    )
    rows = table("figure", ">A", ">B", *([">A - B"] if wide else []), ">95 % of A - B", "A")
    rows.columns[-1].no_wrap = True
    unpaired = False
    for name in common(new.figures, old.figures):
        a, b = new.figures[name], old.figures[name]
        change = difference(a, b)
        judged = verdict(a, change)
        unpaired |= not change.paired
        rows.add_row(
            f"{plain(title(name))} {arrow(a)}",
            shown(a.value),
            shown(b.value),
            *([signed(change.value)] if wide else []),
            f"{signed(change.low)} to {signed(change.high)}{' ' if change.paired else '*'}",
            f"[{_COLOURS[judged]}]{judged}[/]",
        )
    notes = ["[dim]* unpaired: not of the same draws of the same items[/]"] if unpaired else []
    if new.data.digest != old.data.digest:
        notes.append("[yellow]They were measured on different data: a difference may be the data's.[/]")
    return Group(heading, rows, *notes)


def outcome(folder: Path) -> str:
    """The closing line."""
    return (
        f"[green]✓[/] Wrote {plain(str(folder / 'evaluation.json'))} and {plain(str(folder / 'index.html'))}"
    )
