"""Scores of the Numenta anomaly benchmark with intervals: of steps, of alarms, and of a simple detector beside them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.estimates import Sampling, Statistic, estimate
from deployments.evaluation.record import Figure
from deployments.reconstruction.alarms import Watch, watch
from model_store import nab
from model_store.tabling import Alarms

Doubles = NDArray[np.float64]

_THRESHOLDS: Final = 100
"""That alarms are tried at."""

KINDS: Final = {
    "nab": "every step above the best threshold counts; 0: finds nothing, 100: all at once",
    "nab_alarms": "the steps where alarms begin, at the best threshold",
    "nab_own_alarms": "the steps where alarms begin, at the package's own threshold",
    "nab_gaussian": "the benchmark's windowed Gaussian, for comparison",
}


def benchmark(
    series: Sequence[nab.Series], scores: Sequence[Doubles], threshold: float, policy: Alarms, key: str
) -> dict[str, Figure]:
    """By kind and profile, of the scores [steps] of each series; `threshold` is the package's own. Series are drawn again."""
    windows = np.array([len(each.windows) for each in series], np.float64)
    sampling = Sampling(f"{key}:nab", (windows > 0).astype(np.int64))
    gaussian = [nab.windowed_gaussian(each.values) for each in series]
    begins = [_begins(scores, each, policy) for each in (threshold, *_thresholds(scores))]
    made = {}
    for profile, weighing in nab.PROFILES.items():
        steps, simple = (nab.Swept(series, each, weighing) for each in (scores, gaussian))
        # [thresholds, series], the package's own first.
        gains = np.array(
            [
                [nab.gained(each, own, weighing) for each, own in zip(series, begun, strict=True)]
                for begun in begins
            ]
        )
        statistics = (
            _best(steps),
            _highest(gains, windows, weighing),
            _highest(gains[:1], windows, weighing),
        )
        for kind, statistic in zip(KINDS, (*statistics, _best(simple)), strict=True):
            made[f"{kind}.{profile}"] = estimate(
                statistic,
                sampling,
                better=None if kind == "nab_gaussian" else True,
                about=KINDS[kind],
            )
    return {f"{kind}.{profile}": made[f"{kind}.{profile}"] for kind in KINDS for profile in nab.PROFILES}


def _best(swept: nab.Swept) -> Statistic:
    return lambda weights: swept.best(weights).value


def _highest(gains: Doubles, windows: Doubles, profile: nab.Profile) -> Statistic:
    return lambda weights: nab.scaled(float((gains @ weights).max()), float(windows @ weights), profile)


def _thresholds(scores: Sequence[Doubles]) -> list[float]:
    """Denser where few steps are above."""
    shares = np.concatenate([[0.0], np.geomspace(1e-5, 0.2, _THRESHOLDS - 1)])
    thresholds: list[float] = np.quantile(np.concatenate(scores), 1 - shares).tolist()
    return thresholds


def _begins(scores: Sequence[Doubles], threshold: float, policy: Alarms) -> list[NDArray[np.bool_]]:
    """Where alarms begin in each series."""
    begins = [np.zeros(len(each), bool) for each in scores]
    for own, steps in zip(begins, scores, strict=True):
        alarms, _ = watch(steps.tolist(), 0, threshold, policy, Watch())
        own[[each.start for each in alarms]] = True
    return begins
