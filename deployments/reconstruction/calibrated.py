"""What scores of normal items say about another one: thresholds, p-values, how many of a batch to believe. Pure numbers."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from model_store.calibrations import Latents, Method

Floats: TypeAlias = NDArray[np.floating]

# Errors that should be zero are this little below it, when they are differences of float32.
_NOTHING: Final = 1e-4
# Below it a product of a rate and a count is the whole number above: 0.07 * 100 is 7.000000000000001.
_ROUNDING: Final = 1e-9


class Norm:
    """Normal items' latents, as arrays: mean and spread of each dimension, and distances, ascending."""

    def __init__(self, latents: Latents) -> None:
        self.mean, self.spread, self.distances = map(
            np.asarray, (latents.mean, latents.spread, latents.distances)
        )


class Calibrated:
    """Normal items' scores of one kind, ascending, and the threshold taken from them. Never changes."""

    def __init__(
        self,
        scores: Sequence[float] | Floats,
        threshold: float,
        *,
        id_: str = "",
        method: Method = "quantile",
        latents: Latents | None = None,
    ) -> None:
        # A list, because numpy's search lets go of the interpreter, and the event loop would wait to get it back.
        self.array = np.asarray(scores, np.float64)
        self.scores: list[float] = self.array.tolist()
        self.signed = bool(self.scores) and self.scores[0] < -_NOTHING
        self.threshold = threshold
        self.id = id_
        self.method = method
        self.latents = None if latents is None else Norm(latents)

    def p_value(self, score: float) -> float:
        """Split-conformal: share of normal scores at least as high, counting the item itself (Vovk et al. 2005)."""
        above = len(self.scores) - bisect_left(self.scores, score)
        return (1 + above) / (1 + len(self.scores))


def normalized(score: float, threshold: float, *, signed: bool = False) -> float:
    """Map a score to [0, 1] with 0.5 at the threshold, never falling.

    s / (s + t) of errors, whose threshold is positive: 0 for no error (a rounding below zero counts as none). A logistic curve
    around the threshold for scores of any sign.
    """
    if threshold > 0 and not signed:
        return max(score, 0.0) / (max(score, 0.0) + threshold)
    scale = abs(threshold) or 1.0
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, (score - threshold) / scale))))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (1995): those at most q are, in expectation, wrong in a share of at most q.

    Holds for split-conformal p-values of one calibration, too (Bates et al. 2023).
    """
    count, least = len(p_values), 1.0
    result = [1.0] * count
    order = sorted(range(count), key=p_values.__getitem__)
    for rank in range(count, 0, -1):
        place = order[rank - 1]
        least = min(least, p_values[place] * (count / rank))
        result[place] = least
    return result


# -- thresholds: above them is an anomaly ------------------------------------------------------------------------------


def conformal(normal: Sequence[float], rate: float) -> float:
    """Threshold of ascending scores that a new normal item exceeds with a probability of at most `rate`.

    Above it are exactly the scores whose p-value is at most the rate. Raises BadRequest where there are too few.
    """
    exceeding = math.floor(rate * (len(normal) + 1) + _ROUNDING)
    if exceeding < 1:
        least = math.ceil(1 / rate - 1 - _ROUNDING)
        raise BadRequest(
            f"A false positive rate of {rate:g} needs at least {least} normal items, not {len(normal)}.",
            code="too_few_items",
            param="input",
        )
    return normal[len(normal) - exceeding]


def quantile(normal: Sequence[float], level: float) -> float:
    """The scores' quantile, linear between two of them."""
    return float(np.quantile(normal, level))


def best_f1(normal: Sequence[float], anomalous: Sequence[float]) -> tuple[float, float]:
    """Threshold with the greatest F1 of finding the anomalies, and that F1. Of equally good ones the highest.

    It lies half-way between two scores, so that neither is cut by a rounding.
    """
    scores = np.unique(np.concatenate([normal, anomalous]))
    below = np.nextafter(scores, -np.inf)
    between = np.concatenate([below[:1], np.minimum((scores[:-1] + scores[1:]) / 2, below[1:])])
    found = len(anomalous) - np.searchsorted(np.sort(anomalous), between, "right")
    alarms = len(normal) - np.searchsorted(np.sort(normal), between, "right")
    f1 = 2 * found / (found + alarms + len(anomalous))
    best = int(len(f1) - 1 - np.argmax(f1[::-1]))
    return float(between[best]), float(f1[best])


# -- latents -----------------------------------------------------------------------------------------------------------


def latents_of(values: Floats) -> Latents:
    """Mean and spread of [items, latent], and the items' distances. What never varies counts as varying by one."""
    spread = values.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 0, spread, 1.0)
    mean = values.mean(axis=0, dtype=np.float64)
    return Latents(
        mean=tuple(mean.tolist()),
        spread=tuple(spread.tolist()),
        distances=tuple(np.sort(distances(values, mean, spread)).tolist()),
    )


def distances(values: Floats, mean: Floats, spread: Floats) -> NDArray[np.float64]:
    """Root mean square of standardised coordinates, for each of [items, latent]: it moves with mean and variance."""
    squares: NDArray[np.float64] = np.sqrt((((values - mean) / spread) ** 2).mean(axis=1))
    return squares
