"""Centre, units and principal axes of rows [count, features], in float64."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """What a row is measured from and in: (row - `centre`) / `scale`, both [features]."""

    centre: Doubles
    scale: Doubles

    def __call__(self, rows: NDArray[Any]) -> Doubles:
        """Rows [count, features] in these units."""
        measured: Doubles = (rows - self.centre) / self.scale
        return measured


def units(rows: NDArray[Any], *, standardize: bool) -> Units:
    """The rows' mean, and each feature's standard deviation where they are to be standardized, else 1.

    A feature that never varies keeps the unit 1. Both are rounded to float32, as a graph holds them: what was fitted and what is
    scored are then measured from the same place.
    """
    wide = rows.astype(np.float64)
    spread = wide.std(0) if standardize else np.ones(wide.shape[1])
    # A constant's deviation is its mean's rounding, not zero.
    constant = spread <= 1e-7 * np.maximum(np.abs(wide).max(0), np.finfo(np.float64).tiny)
    return Units(_rounded(wide.mean(0)), _rounded(np.where(constant, 1.0, spread)))


def _rounded(values: Doubles) -> Doubles:
    return values.astype(np.float32).astype(np.float64)


def axes(centred: Doubles) -> tuple[Doubles, Doubles]:
    """Variances, descending, and the axes [features, axes] along which centred rows have them."""
    count, features = centred.shape
    if count < features:
        _, lengths, across = np.linalg.svd(centred, full_matrices=False)
        return lengths**2 / count, across.T
    variances, across = np.linalg.eigh(centred.T @ centred / count)
    return np.maximum(variances[::-1], 0.0), across[:, ::-1]


def shrinkage(centred: Doubles) -> float:
    """How far a covariance goes towards a multiple of the unit matrix (Ledoit and Wolf 2004), in [0, 1]."""
    count, features = centred.shape
    covariance = centred.T @ centred / count
    square = float((covariance**2).sum())
    mean = float(np.trace(covariance)) / features
    apart = square - features * mean**2
    noise = (float(((centred**2).sum(1) ** 2).sum()) / count - square) / count
    return min(max(noise, 0.0), apart) / apart if apart > 0 else 0.0
