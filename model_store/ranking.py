"""How well scores tell anomalies from normal items, for any number of times that each item counts. Pure numbers."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Weights: TypeAlias = NDArray[np.float64]  # how often each item counts


class Ranked:
    """Scores in falling order beside their labels, sorted once for every way to weigh them. Equal scores are one threshold."""

    def __init__(self, scores: NDArray[Any], labels: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._labels = labels[self._order].astype(np.float64)

    def counts(self, weights: Weights) -> tuple[Weights, Weights]:
        """Anomalies and normal items at or above each threshold."""
        ordered = weights[self._order]
        found, false = ordered * self._labels, ordered * (1 - self._labels)
        return found.cumsum()[self._ends], false.cumsum()[self._ends]

    def auroc(self, weights: Weights) -> float:
        """Area under the ROC curve."""
        found, false = self.counts(weights)
        area = np.trapezoid(np.append(0, found), np.append(0, false))
        return float(area / (found[-1] * false[-1]))

    def average_precision(self, weights: Weights) -> float:
        """Precision at each threshold, weighted by the recall that it adds."""
        found, false = self.counts(weights)
        precision = found / np.maximum(found + false, 1e-12)
        return float((np.diff(found, prepend=0) * precision).sum() / found[-1])

    def best_f1(self, weights: Weights) -> float:
        """F1 at the best of all thresholds."""
        found, false = self.counts(weights)
        return float((2 * found / (found + false + found[-1])).max())


def auroc(normal: NDArray[Any], anomalous: NDArray[Any]) -> float:
    """Probability that an anomaly's score [n] exceeds a normal one [m], ties counted half."""
    scores = np.concatenate([normal, anomalous])
    return Ranked(scores, np.arange(len(scores)) >= len(normal)).auroc(np.ones(len(scores)))
