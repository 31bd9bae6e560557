"""Scores of normal items as a calibration, and the AUROC of scores. Knows arrays, no model."""

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_store.manifest import Calibration, Scoring

QUANTILE: Final = 0.99


def calibrate(
    normal: Mapping[str, NDArray[np.floating[Any]]], default: str, data: str, quantile: float = QUANTILE
) -> tuple[Scoring, dict[str, bytes]]:
    """Set each score's threshold to a quantile of its values [count] on normal items that nothing was learned from.

    Returns the manifest's part, and the scores in ascending order as files by path.
    """
    calibrations, files = {}, {}
    for name, values in normal.items():
        ordered = np.sort(values.astype(np.float32))
        path = f"calibration/{name}.npy"
        with io.BytesIO() as file:
            np.save(file, ordered, allow_pickle=False)
            files[path] = file.getvalue()
        calibrations[name] = Calibration(
            scores=path,
            threshold=float(np.quantile(ordered, quantile)),
            quantile=quantile,
            data=f"{data} ({len(ordered)})",
        )
    return Scoring(default=default, calibrations=calibrations), files


def auroc(normal: NDArray[Any], anomalous: NDArray[Any]) -> float:
    """Probability that an anomaly's score [n] exceeds a normal one [m], ties counted half (Mann-Whitney)."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, "left")
    up_to = np.searchsorted(ordered, anomalous, "right")
    return float((below + up_to).mean() / (2 * len(ordered)))
