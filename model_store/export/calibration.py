"""Items known to be normal become the calibration of anomaly scores: their scores in order, and a threshold among them.

Knows arrays and open graphs, no model.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.export.errors import DraftError
from model_store.export.parity import Runs
from model_store.manifest import Calibration, Measure, Scoring, Tensor

Floats: TypeAlias = NDArray[np.float32]
Truths: TypeAlias = NDArray[np.bool_]

QUANTILE: Final = 0.99
FEWEST: Final = 10
"""Items, below which a threshold is chance."""

PREFIX: Final = "score."
_BATCH: Final = 64
_CHANNELS: Final = (1, 3, 4)


@dataclass(frozen=True)
class Labelled:
    """Items [count, ...] from `file`, and which of them are anomalies: none, where nobody says."""

    items: Floats
    anomalous: Truths
    file: str

    @property
    def normal(self) -> Floats:
        """Those that are no anomalies."""
        return self.items[~self.anomalous]


def read_items(path: Path) -> Labelled:
    """Items `X` [count, ...] and labels `y` [count], if there are any, of an `.npz`. Raises DraftError.

    A label is 0 (normal) or 1 (anomaly). Bytes of three or four dimensions are pictures, with the channels last, first
    or left out: they become [count, channels, height, width] in [0, 1]. Everything else is taken as it is.
    """
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            arrays: dict[str, NDArray[Any]] = dict(stored) if isinstance(stored, np.lib.npyio.NpzFile) else {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DraftError(f"{path.name} cannot be read as an .npz of arrays: {error!s:.200}") from error
    if "X" not in arrays:
        raise DraftError(f"{path.name} has no array X, only {', '.join(sorted(arrays)) or 'none at all'}")
    items = _floats(arrays["X"], path.name)
    return Labelled(items, _labels(arrays.get("y"), len(items), path.name), path.name)


def _floats(given: NDArray[Any], file: str) -> Floats:
    if given.dtype.kind not in "fiub" or given.ndim < 2 or not given.size:
        raise DraftError(f"{file}: X is {given.dtype}{list(given.shape)}, where numbers [items, ...] belong")
    if given.dtype == np.uint8 and given.ndim in {3, 4}:
        given = _channels_first(given) / 255
    with np.errstate(over="ignore"):
        items = given.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(items.reshape(len(items), -1)).all(1))
    if wrong.size:
        raise DraftError(f"{file}: X[{wrong[0]}] is not finite in float32 ({wrong.size} such items)")
    return items


def _channels_first(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pictures.ndim == 3:
        return pictures[:, None]
    last = pictures.shape[3] in _CHANNELS and pictures.shape[1] not in _CHANNELS
    return np.moveaxis(pictures, 3, 1) if last else pictures


def _labels(given: NDArray[Any] | None, count: int, file: str) -> Truths:
    if given is None:
        return np.zeros(count, np.bool_)
    flat = given.reshape(-1)
    if len(flat) != count:
        raise DraftError(f"{file}: y has {len(flat)} labels for {count} items")
    if not np.isin(flat, (0, 1)).all():
        raise DraftError(f"{file}: a label in y is 0 (normal) or 1 (anomaly)")
    return flat.astype(np.bool_)


def scores_of(
    session: Runs, tensors: tuple[Sequence[Tensor], Sequence[Tensor]], items: Floats
) -> dict[str, Floats]:
    """Every score [count] that a graph with these inputs and outputs gives items; what it takes beside them is zero."""
    inputs, outputs = tensors
    scores = {each.role.removeprefix(PREFIX): each.name for each in outputs if each.role.startswith(PREFIX)}
    pieces = []
    for first in range(0, len(items), _BATCH):
        piece = items[first : first + _BATCH]
        feeds = {each.name: piece if each.role == "input" else _zeros(each, len(piece)) for each in inputs}
        pieces.append(session.run(feeds, list(scores.values())))
    return {
        name: np.concatenate([piece[place] for piece in pieces]).astype(np.float32)
        for place, name in enumerate(scores)
    }


def _zeros(tensor: Tensor, count: int) -> NDArray[Any]:
    return np.zeros((count, *(size for size in tensor.shape[1:] if isinstance(size, int))), tensor.dtype)


def of_normal(scores: Mapping[str, Floats], data: Labelled) -> dict[str, Floats]:
    """The scores [count] of the normal ones among the items. Raises DraftError where these are too few to calibrate by."""
    count = int((~data.anomalous).sum())
    if count < FEWEST:
        raise DraftError(f"a calibration takes {FEWEST} normal items at least; {data.file} leaves {count}")
    return {name: values[~data.anomalous] for name, values in scores.items()}


def calibrate(
    normal: Mapping[str, NDArray[np.floating[Any]]], default: str, data: str, quantile: float = QUANTILE
) -> tuple[Scoring, dict[str, bytes]]:
    """Set each score's threshold to a quantile of its values [count] on normal items that nothing was learned from.

    Returns the manifest's part, and the scores in ascending order as files by path. Raises DraftError.
    """
    calibrations, files = {}, {}
    for name, values in normal.items():
        if not np.isfinite(values).all():
            raise DraftError(f"the score {name!r} is not finite for every normal item")
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
