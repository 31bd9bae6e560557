"""Figures with intervals, by the bootstrap: every statistic is a function of how often each item counts. Knows no model."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.record import Figure
from model_store.ranking import Weights

Statistic: TypeAlias = Callable[[Weights], float]

REPLICATES: Final = 400
_INTERVAL: Final = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Sampling:
    """How items are drawn again: as many of each stratum as there are, so that no draw lacks one.

    `key` names the items and their order: the same key, the same draws.
    """

    key: str
    strata: NDArray[np.integer]

    @classmethod
    def of(cls, key: str, count: int) -> "Sampling":
        """All items in one stratum."""
        return cls(key, np.zeros(count, np.int64))

    @property
    def ones(self) -> Weights:
        """Every item once."""
        return np.ones(len(self.strata))

    def draws(self, count: int) -> Iterator[Weights]:
        """The first `count` draws."""
        seed = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8])
        random = np.random.Generator(np.random.Philox(seed))
        members = [np.flatnonzero(self.strata == each) for each in np.unique(self.strata)]
        for _ in range(count):
            drawn = [random.choice(each, len(each)) for each in members]
            yield np.bincount(np.concatenate(drawn), minlength=len(self.strata)).astype(np.float64)


def estimate(
    statistic: Statistic,
    sampling: Sampling,
    *,
    better: bool | None,
    about: str,
    unit: str = "",
    replicates: int = REPLICATES,
    centred: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """A statistic of all items, with the interval that drawing them again gives.

    `centred`: for statistics that see repeated items as less variety; the draws then tell the spread but not the place,
    and keep within the statistic's `bounds`.
    """
    value = statistic(sampling.ones)
    drawn = np.array([statistic(weights) for weights in sampling.draws(replicates)])
    if centred:
        drawn += value - drawn.mean()
    drawn = drawn.clip(*bounds)
    low, high = np.percentile(drawn, _INTERVAL)
    return Figure(
        value=_rounded(value),
        low=_rounded(low),
        high=_rounded(high),
        higher_is_better=better,
        about=about,
        unit=unit,
        sampling=sampling.key,
        replicates=tuple(map(_rounded, drawn)),
    )


def mean(values: NDArray[np.generic]) -> Statistic:
    """The mean of one number an item."""
    numbers = values.astype(np.float64)
    return lambda weights: float(weights @ numbers / weights.sum())


@dataclass(frozen=True)
class Difference:
    """How much larger one figure is than another, with its 95 % interval. `paired`: both on the same draws of the same items."""

    value: float
    low: float
    high: float
    paired: bool

    @property
    def certain(self) -> bool:
        """Whether no difference lies outside of the interval."""
        return self.low > 0 or self.high < 0


def difference(new: Figure, old: Figure) -> Difference:
    """The difference `new` - `old`; draws of different items are independent of each other."""
    deltas = np.array([a - b for a, b in zip(new.replicates, old.replicates, strict=False)])
    low, high = np.percentile(deltas, _INTERVAL) if deltas.size else (-np.inf, np.inf)
    return Difference(new.value - old.value, float(low), float(high), new.sampling == old.sampling)


def _rounded(value: float) -> float:
    """Six significant digits: more say nothing and triple the file."""
    return float(f"{value:.6g}")
