"""Items known to be normal become the calibration of anomaly scores: their scores in order, and a threshold among them.

Knows arrays and open graphs, no model.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_store import labelled
from model_store.export.errors import DraftError
from model_store.export.parity import Runs
from model_store.feeds import feeds
from model_store.labelled import Floats, Labelled, Truths, WrongArrays
from model_store.manifest import Calibration, Measure, Scoring, Tensor
from model_store.ranking import auroc

QUANTILE: Final = 0.99
FEWEST: Final = 10
"""Items, below which a threshold is chance."""

MOST_LATENTS: Final = 1_000
"""Items whose latents are kept: as many as a window of requests that is watched for drift."""

PREFIX: Final = "score."
_BATCH: Final = 64
_LATENTS: Final = "calibration/latents.npy"


def read_items(path: Path) -> Labelled:
    """`model_store.labelled.read_items`. Raises DraftError."""
    try:
        return labelled.read_items(path)
    except WrongArrays as error:
        raise DraftError(str(error)) from error


def scores_of(
    session: Runs, tensors: tuple[Sequence[Tensor], Sequence[Tensor]], items: Floats
) -> dict[str, Floats]:
    """Every score [count] that a graph with these inputs and outputs gives items; what it takes beside them is `feeds`' choice."""
    inputs, outputs = tensors
    scores = {each.role.removeprefix(PREFIX): each.name for each in outputs if each.role.startswith(PREFIX)}
    pieces = []
    for first in range(0, len(items), _BATCH):
        piece = feeds(inputs, items[first : first + _BATCH])
        pieces.append(session.run(piece, list(scores.values())))
    return {
        name: np.concatenate([piece[place] for piece in pieces]).astype(np.float32)
        for place, name in enumerate(scores)
    }


def of_normal(scores: Mapping[str, Floats], data: Labelled) -> dict[str, Floats]:
    """The scores [count] of the normal ones among the items. Raises DraftError where these are too few to calibrate by."""
    count = int((~data.anomalous).sum())
    if count < FEWEST:
        raise DraftError(f"a calibration takes {FEWEST} normal items at least; {data.file} leaves {count}")
    return {name: values[~data.anomalous] for name, values in scores.items()}


def calibrate(
    normal: Mapping[str, NDArray[np.floating[Any]]],
    default: str,
    data: str,
    quantile: float = QUANTILE,
    latents: NDArray[np.floating[Any]] | None = None,
) -> tuple[Scoring, dict[str, bytes]]:
    """Set each score's threshold to a quantile of its values [count] on normal items that nothing was learned from.

    Returns the manifest's part, and as files by path the scores in ascending order and the items' `latents` [count, latent].
    Raises DraftError.
    """
    calibrations, files = {}, {}
    for name, values in normal.items():
        if not np.isfinite(values).all():
            raise DraftError(f"the score {name!r} is not finite for every normal item")
        ordered = np.sort(values.astype(np.float32))
        path = f"calibration/{name}.npy"
        files[path] = _npy(ordered)
        calibrations[name] = Calibration(
            scores=path,
            threshold=float(np.quantile(ordered, quantile)),
            quantile=quantile,
            data=f"{data} ({len(ordered)})",
        )
    if latents is not None:
        files[_LATENTS] = _npy(latents[:MOST_LATENTS].astype(np.float32))
    kept = None if latents is None else _LATENTS
    return Scoring(default=default, calibrations=calibrations, latents=kept), files


def _npy(values: Floats) -> bytes:
    with io.BytesIO() as file:
        np.save(file, values, allow_pickle=False)
        return file.getvalue()


def measured(scores: Mapping[str, NDArray[Any]], anomalous: Truths, data: str) -> dict[str, Measure]:
    """AUROC of each score [count] on labelled items; nothing where one of the two kinds is missing."""
    if anomalous.all() or not anomalous.any():
        return {}
    words = f"{data}: {int((~anomalous).sum())} normal items and {int(anomalous.sum())} anomalies"
    return {
        f"auroc.{name}": Measure(
            value=round(auroc(values[~anomalous], values[anomalous]), 4), higher_is_better=True, data=words
        )
        for name, values in scores.items()
    }
