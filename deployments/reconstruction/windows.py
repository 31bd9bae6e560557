"""Time series between their values and windows of a graph's input, and windows' results and steps. Knows no request."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.items import ReadItem
from deployments.messages import SeriesItem
from deployments.reconstruction.alarms import Watch
from deployments.reconstruction.sessions import Doubles, Moments, State, beginning, read, written
from model_store.tabling import Series

_LARGEST: Final = float(np.finfo(np.float32).max)
# Of the mean: values that vary less vary by rounding.
_CONSTANT: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Cut:
    """A series cut into windows, each ending behind the step in `ends`, counted from the session's beginning."""

    start: int  # first new step
    steps: int  # new ones
    ends: tuple[int, ...]
    rows: tuple[ReadItem, ...]
    scales: tuple[tuple[Doubles, Doubles], ...]  # each window's mean and deviation, [channels]
    after: State
    timestamps: list[Any] | None


class Windows:
    """A model's."""

    def __init__(self, series: Series, model: str, *, missing: bool) -> None:
        self.series = series
        self._model = model
        self._missing = missing
        self._channels = len(series.channels)
        self._fixed = (
            np.array([each.mean for each in series.channels]),
            np.array([each.deviation for each in series.channels]),
        )

    # -- in ------------------------------------------------------------------------------------------------------------

    def cut(self, item: SeriesItem, param: str, most: int | None = None) -> Cut:
        """The windows of what is new, at most so many. Raises BadRequest naming the step."""
        before = beginning(self._channels)
        if item.session:
            before = read(item.session, self._model, self._channels, self.series.window, f"{param}.session")
        new = self._values(item.values, f"{param}.series")
        _check_timestamps(item.timestamps, len(new), f"{param}.timestamps")
        ends = self._ends(before.seen, len(new), param)
        if most is not None and len(ends) > most:
            raise BadRequest(
                f"The series has {len(ends)} windows, and {most} more are taken in a request: send a part, in a session.",
                code="too_many_rows",
                param=f"{param}.series",
            )
        values = np.concatenate([before.kept, new])
        if not before.seen and np.isnan(new).all():
            raise BadRequest("Every value of the series is missing.", param=f"{param}.series")
        offset = before.seen - len(before.kept)
        moments = _moments(before.moments, new)
        whole = item.session is None  # the series is all there is: its end is known at its beginning
        rows, scales = [], []
        for end in ends:
            known_by = len(new) if whole else end - before.seen
            window = values[max(end - self.series.window - offset, 0) : end - offset]
            mean, deviation = self._scale(window, _at(moments, known_by - 1))
            rows.append(self._row(window, mean, deviation, f"{param}.series"))
            scales.append((mean, deviation))
        seen = before.seen + len(new)
        kept = values[len(values) - min(seen, self.series.window - 1) :]
        after = State(seen, kept, _at(moments, -1), before.watch)
        return Cut(before.seen, len(new), ends, tuple(rows), tuple(scales), after, item.timestamps)

    def _values(self, values: list[Any], param: str) -> Doubles:
        """Float64 [steps, channels], NaN where one is missing."""
        if not values:
            raise BadRequest("The series is empty.", param=param)
        nested = isinstance(values[0], list)
        if not nested and self._channels > 1:
            raise BadRequest(f"A step of this model has {self._channels} values.", param=f"{param}[0]")
        for place, step in enumerate(values):
            if isinstance(step, list) != nested or (nested and len(step) != self._channels):
                raise BadRequest(
                    f"Every step of this model has {self._channels} value{'s'[: self._channels > 1]}.",
                    param=f"{param}[{place}]",
                )
        flat = list(chain.from_iterable(values)) if nested else values
        for place, value in enumerate(flat):
            self._check(value, _place(param, place, self._channels, nested=nested))
        array = np.array([math.nan if value is None else value for value in flat], np.float64)
        return array.reshape(-1, self._channels)

    def _check(self, value: Any, param: str) -> None:
        if value is None:
            if not self._missing:
                raise BadRequest("The model takes no missing values.", param=param)
        elif type(value) not in (int, float):  # by exact type: `true` is no number
            raise BadRequest("A value of a series is a number.", code="invalid_type", param=param)
        elif not abs(value) <= _LARGEST:
            raise BadRequest("The numbers must be finite in float32.", param=param)

    def _ends(self, seen: int, new: int, param: str) -> tuple[int, ...]:
        """Every `hop`-th step and the last new one; without padding from the first whole window on."""
        first = self.series.window if self.series.padding == "none" else self.series.hop
        last, hop = seen + new, self.series.hop
        if self.series.padding == "none" and last < first:
            raise BadRequest(
                f"The model's windows have {first} steps; the series has {last}.", param=f"{param}.series"
            )
        next_end = max(first, first + -(-(seen + 1 - first) // hop) * hop)
        return (*range(next_end, last, hop), last)

    def _scale(self, window: Doubles, moments: Moments) -> tuple[Doubles, Doubles]:
        """Mean and deviation by which a window is normalised: zero mean or unit deviation where there is nothing to go by."""
        if self.series.normalisation == "fixed":
            return self._fixed
        if self.series.normalisation == "window":
            nothing = np.zeros(self._channels)
            moments = _at(_moments(Moments(nothing, nothing, nothing), window), -1)
        deviation = np.sqrt(np.maximum(moments.squares, 0) / np.maximum(moments.count, 1))
        constant = deviation <= _CONSTANT * np.abs(moments.mean)
        return moments.mean, np.where(constant, 1.0, deviation)

    def _row(self, window: Doubles, mean: Doubles, deviation: Doubles, param: str) -> ReadItem:
        size = self.series.window
        with np.errstate(over="ignore"):
            values = ((window - mean) / deviation).astype(np.float32)
        known = np.isfinite(values)
        if np.isinf(values).any():
            raise BadRequest("The numbers must be finite in float32.", param=param)
        values = np.where(known, values, np.float32(0))
        padded = np.zeros((size, self._channels), np.float32)
        padded[size - len(values) :] = values
        if self.series.padding == "edge":
            padded[: size - len(values)] = values[0]
        sent = np.zeros((size, self._channels), np.float32)
        sent[size - len(values) :] = known
        return ReadItem({"input": padded, "known": sent})

    def session(self, cut: Cut, watch: Watch) -> str:
        """What goes on from here."""
        return written(replace(cut.after, watch=watch), self._model)

    # -- out -----------------------------------------------------------------------------------------------------------

    def merged(self, cut: Cut, scores: Sequence[float]) -> list[float]:
        """Each new step's score, of the windows that it is in."""
        steps = np.full(cut.steps, -np.inf)
        counts = np.zeros(cut.steps)
        before = cut.start
        for end, score in zip(cut.ends, scores, strict=True):
            inside = slice(max(end - self.series.window - cut.start, 0), end - cut.start)
            match self.series.merge:
                case "first":
                    # The first window of all also judges the steps before the first hop.
                    steps[before - cut.start : end - cut.start] = score
                case "max":
                    steps[inside] = np.maximum(steps[inside], score)
                case "mean":
                    steps[inside] = np.where(counts[inside], steps[inside], 0) + score
                    counts[inside] += 1
            before = end
        merged: list[float] = (steps / np.maximum(counts, 1)).tolist()
        return merged

    def rebuilt(self, cut: Cut, windows: Sequence[NDArray[np.floating]]) -> Doubles:
        """The series [steps, channels] of reconstructed windows, in its own units: their mean where several have a step."""
        total = np.zeros((cut.steps, self._channels))
        counts = np.zeros((cut.steps, 1))
        for end, window, (mean, deviation) in zip(cut.ends, windows, cut.scales, strict=True):
            first = max(end - self.series.window, cut.start)
            inside = slice(first - cut.start, end - cut.start)
            total[inside] += window[self.series.window - (end - first) :] * deviation + mean
            counts[inside] += 1
        series: Doubles = total / counts
        return series


def _place(param: str, place: int, channels: int, *, nested: bool) -> str:
    return f"{param}[{place // channels}][{place % channels}]" if nested else f"{param}[{place}]"


def _moments(before: Moments, values: Doubles) -> Moments:
    """What is known of the channels after each of the steps, [steps, channels] as the values."""
    with np.errstate(invalid="ignore"):
        first = np.nan_to_num(values[np.argmax(~np.isnan(values), axis=0), np.arange(values.shape[1])])
    around = np.where(before.count > 0, before.mean, first)
    moved = np.nan_to_num(values - around)
    counts = before.count + np.cumsum(~np.isnan(values), axis=0)
    sums, squares = np.cumsum(moved, axis=0), before.squares + np.cumsum(moved**2, axis=0)
    shifts = sums / np.maximum(counts, 1)
    squares = np.maximum(squares - shifts * sums, 0)
    return Moments(counts, around + shifts, squares)


def _at(moments: Moments, step: int) -> Moments:
    return Moments(moments.count[step], moments.mean[step], moments.squares[step])


def _check_timestamps(stamps: list[Any] | None, steps: int, param: str) -> None:
    """As many as steps, numbers or ISO 8601, each later than the one before."""
    if stamps is None:
        return
    if len(stamps) != steps:
        raise BadRequest(f"There are {steps} steps and {len(stamps)} timestamps.", param=param)
    moments = [_moment(stamp, f"{param}[{place}]") for place, stamp in enumerate(stamps)]
    for place, (earlier, later) in enumerate(pairwise(moments), 1):
        try:
            grows = earlier < later  # type: ignore[operator]  # of two kinds they cannot be compared
        except TypeError:
            raise BadRequest("Timestamps are all of one kind.", param=f"{param}[{place}]") from None
        if not grows:
            raise BadRequest("Timestamps grow.", param=f"{param}[{place}]")


def _moment(stamp: Any, param: str) -> float | datetime:
    if type(stamp) in (int, float) and math.isfinite(stamp):
        return float(stamp)
    try:
        return datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        raise BadRequest("A timestamp is a number or an ISO 8601 text.", param=param) from None
