"""ADBench's tables for the table model: reads rows of numbers, some of them anomalies, and splits them. Knows no model.

Han et al. 2022, "ADBench: Anomaly Detection Benchmark". One-class protocol: half of the normal rows are learned from; the
other half and all anomalies are judged.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DATA_FOLDER: Final = "adbench"
DATA_LICENCE: Final = "CC BY 4.0"
DATA_HOME: Final = "https://github.com/Minqi824/ADBench"
MOST_JUDGED: Final = 4_000
"""Rows of a set that are judged, drawn at random."""

MOST_KEPT: Final = 5_000
"""Rows that nearest neighbours are looked for among, drawn at random."""

_BLOCK: Final = 500


class DataError(ValueError):
    """A file is not what ADBench publishes."""


@dataclass(frozen=True)
class Rows:
    """Of one set: `normal` f32 [rows, features] to learn from, `judged` likewise, and which of these are anomalies."""

    name: str
    normal: Floats
    judged: Floats
    anomalous: NDArray[np.bool_]

    @property
    def held(self) -> Floats:
        """Normal rows that nothing is learned from."""
        return self.judged[~self.anomalous]


def files(data: Path) -> list[Path]:
    """The sets below `data`. Raises DataError where there is none."""
    found = sorted((data / DATA_FOLDER).glob("*.npz"))
    if not found:
        raise DataError(f"{DATA_FOLDER} holds no .npz; its home is {DATA_HOME}")
    return found


def read(path: Path, seed: int = 0) -> Rows:
    """A set, split. Raises DataError where it is not an array `X` of finite rows with labels `y`, 0 or 1."""
    with np.load(path, allow_pickle=False) as stored:
        if not {"X", "y"} <= stored.keys():
            raise DataError(f"{path.name} has no arrays X and y")
        rows, labels = stored["X"].astype(np.float32), stored["y"].reshape(-1)
    if rows.ndim != 2 or len(rows) != len(labels) or not np.isfinite(rows).all():
        raise DataError(f"{path.name} has no row of finite numbers for each label")
    if not np.isin(labels, (0, 1)).all() or (labels == 0).sum() < 2:
        raise DataError(f"{path.name} has other labels than 0 and 1, or nothing normal to learn from")
    return split(path.stem, rows, labels == 1, seed)


def split(name: str, rows: Floats, anomalous: NDArray[np.bool_], seed: int = 0) -> Rows:
    """Half of the normal rows to learn from; of the other rows at most MOST_JUDGED."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~anomalous))
    held = round(len(order) / 2)
    judged = np.sort(np.concatenate([order[:held], np.flatnonzero(anomalous)]))
    judged = judged[np.random.default_rng(seed).permutation(len(judged))[:MOST_JUDGED]]
    return Rows(name, rows[np.sort(order[held:])], rows[judged], anomalous[judged])


def units(normal: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation [features] of normal rows; 1 where a feature does not vary."""
    deviation = normal.std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-6 * np.abs(normal).max(axis=0)
    return normal.mean(axis=0, dtype=np.float64).astype(np.float32), np.where(
        constant, 1.0, deviation
    ).astype(np.float32)


def kept(normal: Floats, most: int = MOST_KEPT, seed: int = 0) -> Floats:
    """At most so many of the rows, drawn at random."""
    if len(normal) <= most:
        return normal
    return normal[np.sort(np.random.default_rng(seed).choice(len(normal), most, replace=False))]


def distances(rows: Floats, known: Floats, kept: Floats, nearest: int) -> tuple[Floats, NDArray[np.int64]]:
    """Of the nearest of the kept rows, by what is known [rows, features] (0 or 1): distances, ascending, and places."""
    found, places = [], []
    for first in range(0, len(rows), _BLOCK):
        mask = known[first : first + _BLOCK]
        own = rows[first : first + _BLOCK] * mask
        squares = (own**2).sum(1, keepdims=True) - 2 * own @ kept.T + mask @ (kept**2).T
        chosen = np.argpartition(squares, nearest - 1, axis=1)[:, :nearest]
        order = np.argsort(np.take_along_axis(squares, chosen, 1), axis=1, kind="stable")
        places.append(np.take_along_axis(chosen, order, 1))
        found.append(np.take_along_axis(squares, places[-1], 1))
    return np.sqrt(np.maximum(np.concatenate(found), 0)), np.concatenate(places)


def hidden(rows: Floats, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which values [rows, features] are taken away: this share at random, never all of a row."""
    chance = np.random.default_rng(seed)
    away = chance.random(rows.shape) < share
    away[np.arange(len(rows)), chance.integers(rows.shape[1], size=len(rows))] = False
    return away


def error(filled: NDArray[Any], rows: Floats, away: NDArray[np.bool_]) -> float:
    """Root mean square of what was filled in wrongly."""
    return float(np.sqrt(np.mean((filled[away].astype(np.float64) - rows[away]) ** 2)))
