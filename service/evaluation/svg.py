"""Plots as SVG that takes its colours from the page around it, so that it can be read on light and on dark."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from deployments.evaluation.record import Curve, Figure, Plot

_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 10, 44
COLOURS: Final = 6  # classes c0 ... c5 of the style sheet


class _Axis:
    """Values to places on the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if high <= low:
            low, high = low - 0.5, high + 0.5
        self._low, self._scale, self._start = low, (end - start) / (high - low), start
        self.ticks = ticks(low, high)

    def __call__(self, value: float) -> float:
        return round(self._start + (value - self._low) * self._scale, 1)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two, at most so many."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(each * step, 10) for each in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(plot: Plot) -> str:
    """A plot with axes, grid, marks and, for several curves, a legend below it."""
    xs = [x for curve in plot.curves for x in curve.x]
    ys = [y for curve in plot.curves for y in curve.y]
    square = plot.unit_square
    across = _Axis(*((0.0, 1.0) if square else (min(xs), max(xs))), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(*((0.0, 1.0) if square else _reach(ys, filled=plot.kind == "area")), _HEIGHT - _BOTTOM, _TOP)
    parts = [
        *(_span(across(first), across(last)) for first, last in plot.spans),
        _grid(across, up),
        _titles(plot),
    ]
    if plot.diagonal:
        parts.append(f'<path class="chance" d="M{across(0)},{up(0)}L{across(1)},{up(1)}"/>')
    parts += [
        _curve(curve, place, across, up, filled=plot.kind == "area")
        for place, curve in enumerate(plot.curves)
    ]
    parts += [_mark(name, across(value)) for name, value in plot.marks.items()]
    label = escape(f"{plot.title}: {plot.y} over {plot.x}")
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(plot.title)}</figcaption>{drawing}{_legend(plot.curves)}</figure>"


def _grid(across: _Axis, up: _Axis) -> str:
    bottom = _HEIGHT - _BOTTOM
    lines = [f'<path class="grid" d="M{_LEFT},{up(y)}H{_WIDTH - _RIGHT}"/>' for y in up.ticks]
    lines += [f'<text x="{_LEFT - 8}" y="{up(y) + 4}" text-anchor="end">{y:g}</text>' for y in up.ticks]
    lines += [f'<path class="axis" d="M{across(x)},{bottom}v4"/>' for x in across.ticks]
    lines += [
        f'<text x="{across(x)}" y="{bottom + 17}" text-anchor="middle">{x:g}</text>' for x in across.ticks
    ]
    return "".join(lines) + f'<path class="axis" d="M{_LEFT},{bottom}H{_WIDTH - _RIGHT}"/>'


def _titles(plot: Plot) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    height = (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'<text class="title" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(plot.x)}</text>'
        f'<text class="title" x="12" y="{height}" text-anchor="middle" transform="rotate(-90 12 {height})">{escape(plot.y)}</text>'
    )


def _curve(curve: Curve, place: int, across: _Axis, up: _Axis, *, filled: bool) -> str:
    points = "L".join(f"{across(x)},{up(y)}" for x, y in zip(curve.x, curve.y, strict=True))
    return f'<path class="c{place % COLOURS} {"area" if filled else "line"}" d="M{points}"/>'


def _reach(ys: Sequence[float], *, filled: bool) -> tuple[float, float]:
    """From the lowest to above the highest; from zero where that is near, or what is shown are areas."""
    low, high = min(ys), max(ys)
    if filled or abs(low) < high - low:
        low, high = min(0.0, low), max(0.0, high)
    return low, high + 0.05 * (high - low)


def _span(first: float, last: float) -> str:
    return (
        f'<rect class="window" x="{first}" y="{_TOP}" width="{max(last - first, 2):g}" '
        f'height="{_HEIGHT - _BOTTOM - _TOP}"/>'
    )


def _mark(name: str, x: float) -> str:
    side, anchor = (-5, "end") if x > _WIDTH / 2 else (5, "start")
    return (
        f'<path class="mark" d="M{x},{_TOP}V{_HEIGHT - _BOTTOM}"/>'
        f'<text class="marked" x="{x + side}" y="{_TOP + 12}" text-anchor="{anchor}">{escape(name)}</text>'
    )


def _legend(curves: Sequence[Curve]) -> str:
    if len(curves) == 1:
        return ""
    names = "".join(
        f'<span><i class="c{place % COLOURS}"></i>{escape(each.name)}</span>'
        for place, each in enumerate(curves)
    )
    return f'<div class="legend">{names}</div>'


def interval(figures: Sequence[Figure]) -> str:
    """Where figures lie with their intervals on the line from 0 to 1, one below the other; nothing for figures that leave it."""
    if any(each.unit for each in figures) or not all(
        0 <= bound <= 1 for each in figures for bound in (each.low, each.high, each.value)
    ):
        return ""
    place = _Axis(0.0, 1.0, 6, 134)
    rows = [
        f'<path class="track" d="M2,{14 * row + 7}H138"/>'
        f'<path class="c{row} span" d="M{place(each.low)},{14 * row + 7}H{place(each.high) + 0.1}"/>'
        f'<circle class="c{row} dot" cx="{place(each.value)}" cy="{14 * row + 7}" r="3.5"/>'
        for row, each in enumerate(figures)
    ]
    return f'<svg class="interval" viewBox="0 0 140 {14 * len(figures)}" aria-hidden="true">{"".join(rows)}</svg>'
