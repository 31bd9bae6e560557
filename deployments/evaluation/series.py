"""Evaluates models of time series as they are served: each series goes through in parts, as a session.

What a step is judged by has come by then, so that figures are those of detection as it happens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.evaluation.called import call_speed
from deployments.evaluation.detection import judged
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.estimates import Sampling, estimate, mean
from deployments.evaluation.numenta import benchmark
from deployments.evaluation.record import Curve, Figure, Plot
from deployments.evaluation.series_data import Recorded, stretches
from deployments.evaluation.shown import Found, Progress, Sheet
from deployments.messages import Alarm, Score, SeriesItem
from deployments.studio import Studio
from model_store.manifest import Manifest
from model_store.tabling import Series

_WINDOWS: Final = 256  # of a part
_SHOWN: Final = 6
_BUCKETS: Final = 150  # of a curve on the page
_SPEED: Final = 64  # steps


@dataclass(frozen=True)
class Judged:
    """A series with the score of each step, as it was known when the step came, and its alarms."""

    recorded: Recorded
    scores: NDArray[np.float64]
    alarms: tuple[Alarm, ...]


async def evaluate_series(
    studio: Studio, manifest: Manifest, recorded: Sequence[Recorded], key: str, progress: Progress
) -> Found:
    """Everything that can be said of a model of time series, by its default score."""
    series, scoring = manifest.series, manifest.scoring
    if series is None or scoring is None or "score" not in manifest.capabilities:
        raise EvaluationError(f"{manifest.name} scores no series")
    steps, done, results = sum(len(each.values) for each in recorded), 0, list[Judged]()
    for each in recorded:

        def told(count: int, before: int = done) -> None:
            progress("Scoring steps", before + count, steps)

        results.append(await _judge(studio, manifest.name, series, each, told))
        done += len(each.values)
    progress("Judging scores", 0, 0)
    found = _detected(manifest, results, key)
    if all(each.judged for each in recorded):
        own = scoring.calibrations[scoring.default].threshold
        scores = [each.scores for each in results]
        theirs = [each.recorded.judged for each in results if each.recorded.judged]
        found.figures = benchmark(theirs, scores, own, series.alarms, key) | found.figures
    # First, so that each series' two plots stand side by side.
    found.plots[:0] = _plots(results, scoring.calibrations[scoring.default].threshold)
    found.sheets.append(_sheet(results))
    found.figures |= await _speed(studio, manifest.name, recorded[0], series, progress)
    return found


async def _judge(
    studio: Studio, model: str, series: Series, recorded: Recorded, told: Callable[[int], None]
) -> Judged:
    values, stamps, session = recorded.values, recorded.timestamps, ""
    scores, alarms = list[float](), dict[int, Alarm]()
    for start, end in parts(series, len(values)):
        part = None if stamps is None else stamps[start:end]
        item = SeriesItem([_step(each) for each in values[start:end]], part, session)
        try:
            (output,) = (await studio.call(Score(model, (item,), steps=True))).outputs
        except BadRequest as error:
            raise EvaluationError(
                f"the model refuses {recorded.name}, from step {start} on: {error} ({error.param})"
            ) from error
        session = output.session or ""
        scores += output.step_scores or ()
        # One that goes on over the end of a part is told again.
        alarms |= {each.start: each for each in output.alarms or ()}
        told(end)
    return Judged(recorded, as_it_came(np.array(scores), series), tuple(alarms.values()))


def parts(series: Series, steps: int) -> list[tuple[int, int]]:
    """Which steps are sent together. Windows of one part change each other's steps where they are merged: one at a time then."""
    windows = _WINDOWS if series.merge == "first" else 1
    first = series.window if series.padding == "none" else series.hop
    ends = [*range(min(first + (windows - 1) * series.hop, steps), steps, windows * series.hop), steps]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def as_it_came(scores: NDArray[np.float64], series: Series) -> NDArray[np.float64]:
    """Each step's score by the last window that had ended by then; the least of all before the first one."""
    first = series.window if series.padding == "none" else series.hop
    windows = (np.arange(1, len(scores) + 1) - first) // series.hop  # that have ended, less one
    known: NDArray[np.float64] = np.where(
        windows < 0, scores.min(), scores[(first + windows * series.hop - 1).clip(0)]
    )
    known[-1] = scores[-1]  # the last window ends at the last step
    return known


def _step(values: list[float | None]) -> object:
    return values if len(values) > 1 else values[0]


def _detected(manifest: Manifest, results: Sequence[Judged], key: str) -> Found:
    """Figures of steps, and of labelled windows."""
    if manifest.scoring is None or manifest.series is None:
        return Found()
    labelled = [each for each in results if each.recorded.labels is not None]
    of = labelled or list(results)
    labels = [
        np.zeros(len(each.scores), bool) if each.recorded.labels is None else each.recorded.labels
        for each in of
    ]
    units, count = list[NDArray[np.int64]](), 0
    for own in labels:
        units.append(stretches(own, manifest.series.window) + count)
        count = int(units[-1][-1]) + 1
    named = {manifest.scoring.default: np.concatenate([each.scores for each in of])}
    found = judged(
        named, np.concatenate(labels) if labelled else None, manifest.scoring, key, np.concatenate(units)
    )
    hits = [hit for each in labelled for hit in _hits(each)]
    if hits:
        found.figures["windows_found"] = estimate(
            mean(np.array(hits)),
            Sampling.of(f"{key}:windows", len(hits)),
            better=True,
            about="share of labelled windows with an alarm inside, at the package's own threshold",
        )
    if labelled:
        found.figures["false_alarms_per_1000"] = _false(labelled, key)
    return found


def _hits(judged_: Judged) -> list[bool]:
    """Whether there is an alarm in each of the labelled windows."""
    return [
        any(each.start <= last and each.end >= first for each in judged_.alarms)
        for first, last in judged_.recorded.windows
    ]


def _outside(judged_: Judged) -> int:
    """Alarms that touch no labelled window."""
    windows = judged_.recorded.windows
    return sum(
        all(last < each.start or each.end < first for first, last in windows) for each in judged_.alarms
    )


def _false(labelled: Sequence[Judged], key: str) -> Figure:
    alarms = np.array([_outside(each) for each in labelled], np.float64)
    steps = np.array([len(each.scores) for each in labelled], np.float64)
    return estimate(
        lambda weights: float(1000 * (weights @ alarms) / (weights @ steps)),
        Sampling.of(f"{key}:series", len(labelled)),
        better=False,
        about="alarms outside of labelled windows in 1,000 steps, at the package's own threshold",
    )


def _plots(results: Sequence[Judged], threshold: float) -> list[Plot]:
    """Values and scores over time, of a few series, those with labelled windows first."""
    ordered = sorted(results, key=lambda each: not each.recorded.windows)
    plots = []
    for each in ordered[:_SHOWN]:
        recorded, steps = each.recorded, len(each.scores)
        values = np.array(recorded.values, np.float64)
        spans = tuple((float(first), float(last)) for first, last in recorded.windows)
        line = Curve(name="threshold", x=(0.0, float(steps - 1)), y=(threshold, threshold))
        drawn = {
            "values": tuple(traced(f"channel {k}" if k else "value", own) for k, own in enumerate(values.T)),
            "score": (traced("score", each.scores), line),
        }
        plots += [
            Plot(title=f"{recorded.name}: {what}", x="step", y=what, curves=curves, spans=spans)
            for what, curves in drawn.items()
        ]
    return plots


def traced(name: str, values: NDArray[np.float64]) -> Curve:
    """A curve over steps with all its peaks: the lowest and the highest of every so many steps."""
    size = max(len(values) // _BUCKETS, 1)
    places = set[int]()
    for start in range(0, len(values), size):
        own = np.where(np.isnan(values[start : start + size]), np.inf, values[start : start + size])
        if np.isfinite(own).any():
            places |= {start + int(own.argmin()), start + int(np.where(np.isinf(own), -np.inf, own).argmax())}
    chosen = sorted(places)
    return Curve(
        name=name,
        x=tuple(map(float, chosen)),
        y=tuple(float(f"{values[place]:.5g}") for place in chosen),
    )


def _sheet(results: Sequence[Judged]) -> Sheet:
    lines = []
    for each in results:
        labelled = each.recorded.labels is not None
        hits = _hits(each)
        lines.append(
            (
                each.recorded.name,
                f"{len(each.scores):,}",
                f"{sum(hits)} of {len(hits)}" if labelled else "",
                f"{_outside(each) if labelled else len(each.alarms):,}",
                f"{each.scores.max():.4g}",
            )
        )
    head = ("series", "steps", "windows found", "other alarms", "highest score")
    return Sheet("Alarms", "At the package's own threshold, by its own policy.", head, tuple(lines))


async def _speed(
    studio: Studio, model: str, recorded: Recorded, series: Series, progress: Progress
) -> dict[str, Figure]:
    """Of one more step in a session, and of many."""
    values = [_step(each) for each in recorded.values]
    several = [values[place % len(values)] for place in range(_SPEED)]
    _, begun = parts(series, len(values))[0]
    item = SeriesItem(values[:begun], session="")
    session = (await studio.call(Score(model, (item,)))).outputs[0].session
    requests = {
        count: Score(model, (SeriesItem(several[:count], session=session),), steps=True)
        for count in (1, _SPEED)
    }
    return await call_speed(studio, requests, "steps", progress)
