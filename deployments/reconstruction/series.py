"""Requests of time series: windows go through the model, their results become the series' again. One object a request."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import numpy as np

from deployments.errors import BadRequest
from deployments.items import ReadItem
from deployments.messages import (
    Alarm,
    Array,
    Calibrate,
    Decode,
    Encode,
    Interpolate,
    Output,
    Reconstruct,
    Score,
    SeriesItem,
)
from deployments.oneshot import Result, Task
from deployments.reconstruction.alarms import watch
from deployments.reconstruction.places import named
from deployments.reconstruction.tasks import Autoencoding, Floats
from deployments.reconstruction.windows import Cut, Windows

T = TypeVar("T")

# Windows that are made into one calibration, some at a time.
_MOST_CALIBRATING: Final = 65_536


class Serial:
    """Cuts the series of one request into rows for `rows`, which works on them, and merges its answers."""

    def __init__(self, rows: Autoencoding, windows: Windows, most: int) -> None:
        self._rows = rows
        self._windows = windows
        self._most = most  # windows of a request
        self._cuts: list[Cut | None] = []  # None: an item that is a row as it is
        self._items: list[Any] = []

    # -- scores --------------------------------------------------------------------------------------------------------

    @property
    def owners(self) -> list[int]:
        """The item that each window is of."""
        return [place for place, count in enumerate(self._counts()) for _ in range(count)]

    def rows(self, request: T) -> T:
        """The request of windows. Raises BadRequest."""
        return cast("T", self._cut(request))

    def judged(
        self,
        request: Score,
        outputs: Sequence[Output],
        results: Sequence[Result],  # noqa: ARG002 - as the others
    ) -> tuple[Output, ...]:
        """The worst window's score, which is calibrated as it is; each step's, and alarms."""
        return tuple(
            self._judged(request, place, cut, own)
            for place, (cut, own) in enumerate(zip(self._cuts, self._grouped(outputs), strict=True))
        )

    def _judged(self, request: Score, place: int, cut: Cut | None, own: Sequence[Output]) -> Output:
        worst = max(own, key=lambda output: output.score or 0.0)
        if cut is None:
            return worst
        steps = self._windows.merged(cut, [output.score or 0.0 for output in own])
        threshold = worst.threshold or 0.0
        alarms, after = watch(steps, cut.start, threshold, self._windows.series.alarms, cut.after.watch)
        item = request.items[place]
        goes_on = isinstance(item, SeriesItem) and item.session is not None
        return replace(
            worst,
            start=cut.start,
            step_scores=tuple(steps) if request.steps else None,
            alarms=tuple(_dated(alarm, cut) for alarm in alarms),
            session=self._windows.session(cut, after) if goes_on else None,
        )

    # -- reconstructions and latents -----------------------------------------------------------------------------------

    def reconstruct(self, request: Reconstruct) -> list[Task]:
        """A task a window."""
        request = self._cut(request)
        return named(lambda: self._rows.reconstruct(request), self.owners)

    def reconstructed(self, request: Reconstruct, results: Sequence[Result]) -> tuple[Output, ...]:
        """Series of the same length; the error is the windows' mean, the latent as well."""
        windows = replace(request, items=tuple(self._items))
        outputs = named(lambda: self._rows.reconstructed(windows, results), self.owners)
        return tuple(map(self._rebuilt, self._cuts, self._grouped(outputs)))

    def _rebuilt(self, cut: Cut | None, own: Sequence[Output]) -> Output:
        if cut is None:
            return own[0]
        series = self._windows.rebuilt(cut, [_floats(output.array) for output in own])
        errors = [output.error for output in own if output.error is not None]
        return Output(
            array=Array(series.shape, series.astype("<f4").tobytes()),
            error=sum(errors) / len(errors) if errors else None,
            latent=_mean([output.latent for output in own if output.latent is not None]),
        )

    def encode(self, request: Encode) -> list[Task]:
        """A task a window."""
        request = self._cut(request)
        return named(lambda: self._rows.encode(request), self.owners)

    def encoded(self, request: Encode, results: Sequence[Result]) -> tuple[Output, ...]:
        """The mean of the windows' latents, which has no spread of its own unless there is one window."""
        outputs = named(lambda: self._rows.encoded(request, results), self.owners)
        return tuple(
            own[0]
            if len(own) == 1
            else Output(latent=_mean([output.latent for output in own if output.latent is not None]))
            for own in self._grouped(outputs)
        )

    def decode(self, request: Decode) -> list[Task]:
        """A task a latent."""
        return self._rows.decode(request)

    def ends(self, request: Interpolate) -> tuple[Task | Floats, Task | Floats]:
        """Both ends of an interpolation; one that is a series has one window."""
        start, end = (
            self._one(each, param) if isinstance(each, SeriesItem) else each
            for each, param in ((request.start, "from"), (request.end, "to"))
        )
        return self._rows.ends(replace(request, start=start, end=end))  # type: ignore[arg-type]  # read already

    def interpolate(self, request: Interpolate, start: Floats, end: Floats) -> list[Task]:
        """A task a step."""
        return self._rows.interpolate(request, start, end)

    def decoded(self, request: Decode | Interpolate, results: Sequence[Result]) -> tuple[Output, ...]:
        """Windows as the model knows them: normalised."""
        return self._rows.decoded(request, results)

    # -- odds and ends -------------------------------------------------------------------------------------------------

    def _one(self, item: SeriesItem, param: str) -> ReadItem:
        rows = self._windows.cut(item, param).rows
        if len(rows) > 1:
            raise BadRequest("An end is a series of one window.", param=f"{param}.series")
        return rows[0]

    def _cut(self, request: Any) -> Any:
        """The request of windows."""
        scored = isinstance(request, Score)
        left = _MOST_CALIBRATING if isinstance(request, Calibrate) else self._most
        self._cuts, self._items = [], []
        for place, item in enumerate(request.items):
            cut = None
            if isinstance(item, SeriesItem):
                if item.session is not None and not scored:
                    raise BadRequest("Only scores go on in a session.", param=f"input[{place}].session")
                if scored and request.false_discovery_rate is not None:
                    # Its p-value is one window's of many, and its alarms go by the threshold.
                    raise BadRequest(
                        "Series are scored by their windows: a false discovery rate is of other items.",
                        param="false_discovery_rate",
                    )
                cut = self._windows.cut(item, f"input[{place}]", left)
                left -= len(cut.rows)
            self._cuts.append(cut)
            self._items.extend((item,) if cut is None else cut.rows)
        return replace(request, items=tuple(self._items))

    def _counts(self) -> list[int]:
        return [1 if cut is None else len(cut.rows) for cut in self._cuts]

    def _grouped(self, outputs: Sequence[Output]) -> list[Sequence[Output]]:
        ends = np.cumsum(self._counts()).tolist()
        return [outputs[end - count : end] for end, count in zip(ends, self._counts(), strict=True)]


def _dated(alarm: Alarm, cut: Cut) -> Alarm:
    if cut.timestamps is None:
        return alarm
    first, last = alarm.start - cut.start, alarm.end - cut.start
    began = cut.timestamps[first] if first >= 0 else None
    ended = cut.timestamps[last] if last >= 0 else None
    return replace(alarm, began=began, ended=ended)


def _floats(array: Array | None) -> Floats:
    return np.frombuffer(array.data, "<f4").reshape(array.shape) if array else np.zeros(0, np.float32)


def _mean(arrays: Sequence[Array]) -> Array | None:
    if not arrays:
        return None
    mean = np.mean([np.frombuffer(array.data, "<f4") for array in arrays], axis=0, dtype=np.float64)
    return Array(arrays[0].shape, mean.astype("<f4").tobytes())
