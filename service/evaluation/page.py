"""An evaluation, or two beside each other, as one HTML file that needs nothing else: no script, no font, no other file."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from deployments.evaluation.estimates import difference
from deployments.evaluation.record import Curve, Evaluation, Figure, Plot
from deployments.evaluation.shown import Found, Grid, Passage, Sheet
from service.evaluation.numbers import arrow, common, headline, shown, signed, spread, title, verdict
from service.evaluation.svg import chart, interval

_STYLE: Final = Path(__file__).with_name("page.css")
_METHOD: Final = (
    "Computed on the packaged graphs with ONNX Runtime. Intervals hold 95 % of the values that the figure has when the items are "
    "drawn again with replacement (percentile bootstrap); they say nothing of training again with another seed. "
    "Speed is that of the machine named below, with whatever else ran on it."
)


def evaluation_page(record: Evaluation, found: Found) -> str:
    """The page of one version."""
    model = record.model
    facts = [
        f"{model.task} · {model.family}",
        f"data: {record.data.name}, {record.data.items:,} items",
        *[f"{name}: {count:,}" for name, count in list(record.data.groups.items())[:12]],
        f"{record.created:%Y-%m-%d}",
    ]
    parts = [
        f"<header><h1>{escape(model.name)}<small>version {escape(model.version)}</small></h1>",
        f'<p class="soft">{escape(model.description)}</p>{_facts(facts)}</header>',
        _heads(record.figures),
        f"<h2>Figures</h2>{_figures(record.figures)}",
        _plots(record.plots),
        *map(_sheet, found.sheets),
        _grids(found.grids),
        _passages(found.passages),
        f'<h2>How it was measured</h2><p class="soft">{_METHOD}</p>{_details(record)}',
    ]
    return _page(f"{model.name} {model.version}: evaluation", parts)


def comparison_page(new: Evaluation, old: Evaluation) -> str:
    """Two versions or models beside each other, the first one judged by the second."""
    names = [_called(each) for each in (new, old)]
    same = new.data.digest == old.data.digest
    about = (
        "Both were measured on the same items: differences are paired where a figure is of the same draws."
        if same
        else "They were measured on different data: differences are between different items, and may be the data's."
    )
    parts = [
        f'<header><h1>{escape(names[0])}<small>beside {escape(names[1])}</small></h1><p class="soft">{about}</p></header>',
        f"<h2>Figures</h2>{_differences(new, old, names)}",
        _plots(_joined(new, old, names)),
        f'<h2>How it was measured</h2><p class="soft">{_METHOD}</p>',
        *(f"<h3>{escape(name)}</h3>{_details(each)}" for name, each in zip(names, (new, old), strict=True)),
    ]
    return _page(f"{names[0]} beside {names[1]}", parts)


def _called(record: Evaluation) -> str:
    return f"{record.model.name}:{record.model.version}"


def _page(heading: str, parts: Sequence[str]) -> str:
    style = _STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{style}</style></head><body><main>{''.join(parts)}"
        "<footer>Made by Atelier.</footer></main></body></html>\n"
    )


def _facts(facts: Sequence[str]) -> str:
    return f'<ul class="facts">{"".join(f"<li>{escape(each)}</li>" for each in facts)}</ul>'


def _heads(figures: Mapping[str, Figure]) -> str:
    cards = [
        f'<div class="card"><span class="name">{escape(title(name))}</span><b>{shown(figures[name].value)} '
        f"<small>{escape(figures[name].unit)}</small></b><span>95 %: {spread(figures[name])}</span></div>"
        for name in headline(figures)
    ]
    return f'<div class="heads">{"".join(cards)}</div>'


def _figures(figures: Mapping[str, Figure]) -> str:
    rows = [
        f'<tr><td class="name">{escape(title(name))}<small>{escape(each.about)}</small></td>'
        f'<td class="number">{shown(each.value, each.unit)} {arrow(each)}</td><td class="number">{spread(each)}</td>'
        f'<td class="bar">{interval([each])}</td></tr>'
        for name, each in figures.items()
    ]
    head = '<th>figure</th><th class="number">value</th><th class="number">95 % interval</th><th class="bar"></th>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _differences(new: Evaluation, old: Evaluation, names: Sequence[str]) -> str:
    rows = []
    for name in common(new.figures, old.figures):
        a, b = new.figures[name], old.figures[name]
        change = difference(a, b)
        judged = verdict(a, change)
        rows.append(
            f'<tr><td class="name">{escape(title(name))} {arrow(a)}</td><td class="number">{shown(a.value, a.unit)}</td>'
            f'<td class="number">{shown(b.value, b.unit)}</td><td class="bar">{interval([a, b])}</td>'
            f'<td class="number">{signed(change.value)}</td>'
            f'<td class="number">{signed(change.low)} to {signed(change.high)}{"" if change.paired else "*"}</td>'
            f'<td class="{judged}">{judged}</td></tr>'
        )
    legend = [f'<span><i class="c{place}"></i>{escape(name)}</span>' for place, name in enumerate(names)]
    heads = [f'<th class="number">{escape(name)}</th>' for name in names]
    head = f'<th>figure</th>{"".join(heads)}<th class="bar"></th><th class="number">difference</th><th class="number">95 % interval</th><th></th>'
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    star = '<p class="soft">* Unpaired: not of the same draws of the same items. No word: no clear difference.</p>'
    return f'{table}<div class="legend">{"".join(legend)}</div>{star}'


def _joined(new: Evaluation, old: Evaluation, names: Sequence[str]) -> list[Plot]:
    """Plots that both have, the curves of both in each."""
    others = {plot.title: plot for plot in old.plots}
    joined = []
    for plot in new.plots:
        other = others.get(plot.title)
        if other and (plot.x, plot.y) == (other.x, other.y):
            curves = [
                Curve(name=f"{name}, {curve.name}", x=curve.x, y=curve.y)
                for name, each in zip(names, (plot, other), strict=True)
                for curve in each.curves
            ]
            joined.append(plot.model_copy(update={"curves": tuple(curves), "marks": {}}))
    return joined


def _plots(plots: Sequence[Plot]) -> str:
    return f'<h2>Curves</h2><div class="plots">{"".join(map(chart, plots))}</div>' if plots else ""


def _grids(grids: Sequence[Grid]) -> str:
    return "<h2>Samples</h2>" + "".join(map(_grid, grids)) if grids else ""


def _grid(grid: Grid) -> str:
    tiles = [
        f'<div class="tile"><img alt="{escape(each.caption)}" src="data:image/png;base64,{base64.b64encode(each.png).decode()}">'
        f"{escape(each.caption)}</div>"
        for each in grid.tiles
    ]
    return f'<h3>{escape(grid.title)}</h3><p class="soft">{escape(grid.about)}</p><div class="tiles">{"".join(tiles)}</div>'


def _sheet(sheet: Sheet) -> str:
    classes = ['class="name"', *(['class="number"'] * (len(sheet.head) - 1))]
    head = "".join(f"<th {own}>{escape(each)}</th>" for own, each in zip(classes, sheet.head, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td {own}>{escape(each)}</td>' for own, each in zip(classes, row, strict=True))}</tr>"
        for row in sheet.rows
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'<h2>{escape(sheet.title)}</h2><p class="soft">{escape(sheet.about)}</p>{table}'


def _passages(passages: Sequence[Passage]) -> str:
    shown_ = [
        f'<div class="passage"><pre class="asked">{escape(each.prompt)}</pre><pre>{escape(each.answer) or "(nothing)"}</pre>'
        + (f'<pre class="wanted">{escape(each.wanted)}</pre>' if each.wanted else "")
        + "</div>"
        for each in passages
    ]
    about = "Each: the prompt, what the model wrote, and in green what was right where that is known."
    return f'<h2>Samples</h2><p class="soft">{about}</p>{"".join(shown_)}' if shown_ else ""


def _details(record: Evaluation) -> str:
    facts = {
        "package": f"{_called(record)}, {record.model.digest}",
        "data": f"{record.data.name}, {record.data.items:,} items, {record.data.digest}",
        "measured": f"{record.created:%Y-%m-%d %H:%M} UTC in {record.seconds:,.0f} s",
        **record.settings,
        **record.environment,
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="card">{rows}</dl>'
