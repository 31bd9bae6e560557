"""The score of the Numenta anomaly benchmark: early detections inside labelled windows, against false alarms.

Lavin & Ahmad 2015, "Evaluating real-time anomaly detection algorithms", as their own program computes it. Knows no model.
"""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Span = tuple[int, int]  # first and last step of a window


@dataclass(frozen=True, slots=True)
class Profile:
    """What a detection, a false alarm and a missed window weigh."""

    true_positive: float = 1.0
    false_positive: float = 0.11
    false_negative: float = 1.0


PROFILES: Final = {
    "standard": Profile(),
    "reward_low_FP_rate": Profile(false_positive=0.22),
    "reward_low_FN_rate": Profile(false_negative=2.0),
}

# The first steps of a series are not judged: a share, of so many steps at most.
_PROBATION: Final = 0.15
_PROBATION_OF: Final = 5000
_FAR: Final = 3.0  # widths of a window behind it, from which on a false alarm costs all


@dataclass(frozen=True, slots=True)
class Series:
    """One labelled series of one channel. `windows` are places of steps, ascending, both ends included."""

    name: str
    timestamps: tuple[datetime, ...]
    values: Doubles
    windows: tuple[Span, ...]

    @property
    def probation(self) -> int:
        """Steps at the beginning that are not judged."""
        return math.floor(min(_PROBATION * len(self.values), _PROBATION * _PROBATION_OF))


@dataclass(frozen=True, slots=True)
class Score:
    """The best score over all thresholds (0: detects nothing, 100: perfect), and that threshold."""

    value: float
    threshold: float


def read(folder: Path) -> list[Series]:
    """The benchmark's series, from its folders `data` and `labels`; those whose data are not there are left out."""
    labels: dict[str, list[list[str]]] = json.loads((folder / "labels" / "combined_windows.json").read_text())
    files = {name: folder / "data" / name for name in sorted(labels)}
    return [_series(path, name, labels[name]) for name, path in files.items() if path.exists()]


def _series(path: Path, name: str, windows: list[list[str]]) -> Series:
    with path.open(newline="") as file:
        rows = [
            (datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)
        ]
    stamps = [stamp for stamp, _ in rows]
    first = {stamp: place for place, stamp in reversed(list(enumerate(stamps)))}
    spans = tuple(
        (first[datetime.fromisoformat(start)], first[datetime.fromisoformat(end)]) for start, end in windows
    )
    return Series(name, tuple(stamps), np.array([value for _, value in rows]), spans)


def nab_scores(series: Sequence[Series], scores: Iterable[Doubles]) -> dict[str, Score]:
    """The score of each profile. `scores` are each series' steps', in the series' order; higher is less normal.

    One threshold holds for all series, as in the benchmark, which chooses it for the best score.
    """
    own = list(scores)
    return {name: Swept(series, own, profile).best() for name, profile in PROFILES.items()}


class Swept:
    """What one profile gives for detecting at each threshold, sorted once for every way to weigh the series."""

    def __init__(self, series: Sequence[Series], scores: Sequence[Doubles], profile: Profile) -> None:
        judged, gains, firsts = [], [], 0
        windows = []
        for each, own in zip(series, scores, strict=True):
            gain, window = _gains(each, profile)
            kept = slice(each.probation, None)
            judged.append(np.asarray(own, np.float64)[kept])
            gains.append(gain[kept])
            windows.append(np.where(window[kept] < 0, -1, window[kept] + firsts))
            firsts += len(each.windows)
        order = np.argsort(-np.concatenate(judged), kind="stable")
        self._ordered = np.concatenate(judged)[order]
        self._added = _added(np.concatenate(gains)[order], np.concatenate(windows)[order], profile)
        self._owners = np.repeat(np.arange(len(judged)), list(map(len, judged)))[order]
        # A threshold takes all steps of its own score.
        self._ends = np.flatnonzero(np.append(self._ordered[1:] != self._ordered[:-1], True)) + 1
        self._windows = np.array([len(each.windows) for each in series], np.float64)
        self._profile = profile

    def best(self, weights: Doubles | None = None) -> Score:
        """At the best threshold; `weights` [series] say how often each one counts."""
        weights = np.ones(len(self._windows)) if weights is None else weights
        sums = np.concatenate([[0.0], np.cumsum(self._added * weights[self._owners])])
        totals = np.concatenate([sums[:1], sums[self._ends]])
        best = int(np.argmax(totals))
        threshold = float(self._ordered[self._ends[best - 1] - 1]) if best else math.inf
        return Score(scaled(float(totals[best]), float(weights @ self._windows), self._profile), threshold)


def scaled(gained: float, windows: float, profile: Profile) -> float:
    """What is gained beyond detecting nothing, of so many windows, as a share of what there is to be gained in percent."""
    return 100 * gained / (windows * (profile.true_positive + profile.false_negative))


def gained(series: Series, detected: NDArray[np.bool_], profile: Profile) -> float:
    """What detections at these steps [steps] give beyond detecting nothing; each window counts its earliest one."""
    gain, window = _gains(series, profile)
    seen = detected.copy()
    seen[: series.probation] = False
    inside = (np.flatnonzero(seen & (window == place)) for place in range(len(series.windows)))
    found = sum(float(gain[steps].max()) + profile.false_negative for steps in inside if steps.size)
    return found + float(gain[seen & (window < 0)].sum())


def _gains(series: Series, profile: Profile) -> tuple[Doubles, NDArray[np.int64]]:
    """What detecting at each step is worth, and the step's window (-1: none)."""
    size = len(series.values)
    gain = np.full(size, -profile.false_positive)
    window = np.full(size, -1)
    for place, (start, end) in enumerate(series.windows):
        width = end - start + 1
        inside = np.arange(start, end + 1)
        gain[inside] = profile.true_positive * _sigmoid(-(end - inside + 1) / width) / _sigmoid(-1.0)
        window[inside] = place
        following = series.windows[place + 1][0] if place + 1 < len(series.windows) else size
        behind = np.arange(end + 1, following)
        gain[behind] = profile.false_positive * _sigmoid((behind - end) / max(width - 1, 1))
    return gain, window


def _sigmoid(place: Doubles | float) -> Doubles:
    """From 1 well inside a window to -1 far behind it; 0 at its right end."""
    place = np.asarray(place, np.float64)
    value: Doubles = np.where(place > _FAR, -1.0, 2 / (1 + np.exp(5 * np.minimum(place, _FAR))) - 1)
    return value


def _added(gain: Doubles, window: NDArray[np.int64], profile: Profile) -> Doubles:
    """What each step adds to the sum as the threshold falls: a window counts once, by its earliest detection."""
    added = gain.copy()
    for place in range(int(window.max(initial=-1)) + 1):
        inside = np.flatnonzero(window == place)
        reached = np.maximum.accumulate(np.concatenate([[-profile.false_negative], gain[inside]]))
        added[inside] = np.diff(reached)
    return added


def windowed_gaussian(values: Doubles, *, window: int = 6400, every: int = 100) -> Doubles:
    """The benchmark's own simple detector: one minus the tail probability under a Gaussian of the values before.

    It fits the last `window` values, again every `every` of them; all values at each step until there are so many.
    Scores have 12 decimals, as in the benchmark's own result files: what is nearly 1 is 1, which its figure rests on.
    """
    size = len(values)
    moved = values - values[:1]  # constant series have a variance of exactly zero
    counts = np.arange(1, size + 1)
    mean = np.cumsum(moved) / counts
    variance = np.cumsum(moved**2) / counts - mean**2
    for start in range(window, size, every):
        fitted = moved[start - window : start]
        mean[start - 1 : start - 1 + every] = fitted.mean()
        variance[start - 1 : start - 1 + every] = fitted.var()
    deviation = np.sqrt(np.maximum(variance, 0.0))
    deviation[deviation == 0] = 1e-6
    far = np.abs(moved[1:] - mean[:-1]) / deviation[:-1]
    tail = np.array([0.5 * math.erfc(each / math.sqrt(2)) for each in far.tolist()])
    return np.concatenate([[0.0], np.round(1 - tail, 12)])
