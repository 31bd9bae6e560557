"""An evaluation in a terminal. Writes nothing."""

from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table

from deployments.evaluation.estimates import difference
from deployments.evaluation.record import Evaluation, Plot
from service.commands.card import plain, table
from service.evaluation.numbers import arrow, common, shown, signed, spread, title, verdict

BARS: Final = "▁▂▃▄▅▆▇█"
_EXPLAINED = 110  # columns that leave room for what a figure is
_COLOURS = {"better": "green", "worse": "red", "": "dim"}


def figures(record: Evaluation, width: int) -> RenderableType:
    """Every figure with its interval, and what it is where the terminal is wide enough; then how what was measured is distributed."""
    model, data = record.model, record.data
    heading = f"[bold]{model.name}:{model.version}[/] on {plain(data.name)}, {data.items:,} items"
    explained = width >= _EXPLAINED
    rows = table("figure", ">value", ">95 % interval", *(["what it is"] if explained else []))
    _keep_numbers(rows, 3)
    for name, each in record.figures.items():
        about = [f"[dim]{plain(each.about)}[/]"] if explained else []
        value = f"[bold]{shown(each.value, each.unit)}[/] {arrow(each) or ' '}"
        rows.add_row(plain(title(name)), value, spread(each), *about)
    return Group(heading, rows, *(_bars(plot) for plot in record.plots if plot.kind == "area"))


def _keep_numbers(rows: Table, columns: int) -> None:
    """Break names where there is no room: a number that is cut off is another number."""
    for place, column in enumerate(rows.columns[:columns]):
        column.no_wrap = place > 0


def _bars(plot: Plot) -> Table:
    """How values are distributed: each group as a line of bars over one axis."""
    rows = Table.grid(padding=(0, 1))
    low, high = plot.curves[0].x[0], plot.curves[0].x[-1]
    top = max(max(curve.y) for curve in plot.curves) or 1
    rows.add_row(f"[bold]{plain(plot.title)}[/]", f"[dim]{shown(low)} to {shown(high)}, {plain(plot.x)}[/]")
    for curve in plot.curves:
        shares = curve.y[1:-1:2]  # a step has two corners
        bars = "".join(BARS[round((len(BARS) - 1) * each / top)] if each else " " for each in shares)
        rows.add_row(plain(curve.name), f"[cyan]{bars}[/]")
    rows.add_row()
    return rows


def differences(new: Evaluation, old: Evaluation, width: int) -> RenderableType:
    """The figures that both have, and by how much they differ."""
    wide = width >= _EXPLAINED
    heading = "\n".join(
        f"[bold]{letter}[/] {each.model.name}:{each.model.version} [dim]on {plain(each.data.name)}[/]"
        for letter, each in (("A", new), ("B", old))
    )
    rows = table("figure", ">A", ">B", *([">A - B"] if wide else []), ">95 % of A - B", "A")
    _keep_numbers(rows, len(rows.columns))
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
