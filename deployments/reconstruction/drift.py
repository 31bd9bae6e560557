"""Whether what is asked for lately still looks like what the model was calibrated on. Warns, and changes nothing.

The last values of each score, and of the latents' distances from normal, beside their calibration's: the population
stability index over its deciles, and the Kolmogorov-Smirnov statistic. A request only leaves its values; once in a while
they are compared, on a thread.
"""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.metrics import Metrics
from deployments.reconstruction.calibrated import Calibrated, Floats, distances

logger = logging.getLogger(__name__)

WINDOW: Final = 1000
EVERY: Final = 100
LATENT: Final = "latent"

_BINS: Final = 10
# A population has shifted from here on, by the rule of thumb of credit scoring (Siddiqi 2006).
_SHIFTED: Final = 0.25
# Small samples have a large index by chance: so the statistic must be improbable, too (p < 0.001).
_IMPROBABLE: Final = math.sqrt(-math.log(0.001 / 2) / 2)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the window's values are from the reference's."""

    psi: float
    ks: float
    items: int
    warning: bool


def psi(reference: Floats, values: Floats) -> float:
    """Population stability index over the deciles of the reference; half an item is added to every bin.

    Sum over bins of (p - q) ln(p / q): the symmetric divergence of Kullback and Leibler. Both ascending.
    """
    edges = np.unique(reference[len(reference) * np.arange(1, _BINS) // _BINS])
    expected, actual = (_shares(each, edges) for each in (reference, values))
    return float(((actual - expected) * np.log(actual / expected)).sum())


def _shares(ascending: Floats, edges: Floats) -> NDArray[np.float64]:
    # Values on an edge count below it, so that what is nearly always the same has a bin of its own.
    counts = np.diff(np.searchsorted(ascending, edges, "right"), prepend=0, append=len(ascending)) + 0.5
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def kolmogorov_smirnov(reference: Floats, values: Floats) -> float:
    """Greatest difference of the two distribution functions, at any value of either. Both ascending."""
    # Between two values of one the other's function only rises: the greatest difference is at a value, or right before it.
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    return max(
        float(np.abs(_below(reference, values, side) - _below(values, values, side)).max()) for side in sides
    )


def _below(ascending: Floats, at: Floats, side: Literal["left", "right"]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.searchsorted(ascending, at, side) / len(ascending)
    return shares


def shift(reference: Floats, values: Floats) -> Shift:
    """Compare a window with a reference that ascends."""
    window = np.sort(values)
    index, statistic = psi(reference, window), kolmogorov_smirnov(reference, window)
    n, m = len(reference), len(window)
    improbable = statistic > _IMPROBABLE * math.sqrt((n + m) / (n * m))
    return Shift(index, statistic, m, improbable and index > _SHIFTED)


@dataclass(frozen=True, slots=True)
class Arrived:
    """What has come of one score since the last comparison, and the calibration to compare it with."""

    score: str
    usual: Calibrated
    values: Sequence[float]
    latents: Sequence[Floats]


class Drift:
    """Of one model: a window for each score that was asked for, and one for the latents."""

    def __init__(self, model: str, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._values: dict[str, list[float]] = {}
        self._latents: list[Floats] = []
        self._comparing = threading.Lock()
        self._windows: dict[str, NDArray[np.float64]] = {}
        self._shifts: dict[str, Shift] = {}

    def observe(
        self, score: str, usual: Calibrated, values: Sequence[float], latents: Sequence[Floats]
    ) -> Arrived | None:
        """Keep them; what is to be compared now, if it is time. `usual` is the score's default calibration."""
        kept = self._values.setdefault(score, [])
        kept.extend(values)
        self._latents.extend(latents)
        if len(kept) < EVERY:
            return None
        arrived = Arrived(score, usual, kept, self._latents)
        self._values[score], self._latents = [], []
        return arrived

    def compare(self, arrived: Arrived) -> None:
        """Move the windows on, set the gauges, and warn where a drift begins. Takes a fraction of a millisecond: for a thread."""
        with self._comparing:
            self._compare(arrived.score, arrived.values, arrived.usual.array)
            normal = arrived.usual.latents
            if normal is not None and arrived.latents:
                away = distances(np.stack(arrived.latents), normal.mean, normal.spread)
                self._compare(LATENT, away, normal.distances)

    @property
    def card(self) -> Mapping[str, Any]:
        """What the model's card shows."""
        return {of: asdict(each) for of, each in self._shifts.items()}

    def _compare(self, of: str, values: Sequence[float] | Floats, reference: Floats) -> None:
        window = np.concatenate([self._windows.get(of, ()), values])[-WINDOW:]
        self._windows[of] = window
        if not len(reference):
            return
        found, before = shift(reference, window), self._shifts.get(of)
        self._shifts = {**self._shifts, of: found}
        self._metrics.drift_psi.labels(self._model, of).set(found.psi)
        self._metrics.drift_ks.labels(self._model, of).set(found.ks)
        if found.warning and not (before and before.warning):
            logger.warning(
                "%s: %s of the last %d items has drifted from its calibration (PSI %.2f, KS %.2f).",
                self._model,
                of,
                found.items,
                found.psi,
                found.ks,
            )
