"""Items in an `.npz` file, and what is known of them. Knows no model.

X [items, ...]                  numbers; bytes of three or four dimensions are pictures, with the channels last, first or left out
y [items]                       0: normal, 1: an anomaly
masks [items, height, width]    not 0 in an anomaly's defects
prompts [items]                 words that each picture is of
features [columns]              names of the columns of X [items, columns]
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Truths: TypeAlias = NDArray[np.bool_]

_CHANNELS: Final = (1, 3, 4)


class WrongArrays(ValueError):
    """The file is none of this kind. The message is one sentence that names it."""


@dataclass(frozen=True)
class Labelled:
    """Items [count, ...] from `file`, and which of them are anomalies: none, where nobody says."""

    items: Floats
    anomalous: Truths
    file: str
    masks: Truths | None = None  # [count, height, width]
    prompts: tuple[str, ...] = ()
    features: tuple[str, ...] = ()  # of [count, features]

    @property
    def normal(self) -> Floats:
        """Those that are no anomalies."""
        return self.items[~self.anomalous]


@dataclass(frozen=True)
class Rows:
    """Rows [count, columns] of a table; NaN is missing. `features` are the columns' names where the file has some."""

    values: NDArray[np.float64]
    anomalous: Truths
    features: tuple[str, ...] = ()


def read_rows(path: Path) -> Rows:
    """Read a table, with all digits, and with missing values. Raises WrongArrays."""
    arrays = _arrays(path)
    values = _doubles(arrays["X"], (2,), "[rows, columns]", path.name)
    anomalous = _labels(arrays.get("y"), None, len(values), path.name)
    return Rows(values, anomalous, _features(arrays.get("features"), values.shape, path.name))


def is_named(path: Path) -> bool:
    """Whether the columns of a table have names; of what is no `.npz` whoever reads it says what is wrong."""
    try:
        with zipfile.ZipFile(path) as stored:  # reads no array
            return "features.npy" in stored.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_series(path: Path) -> tuple[NDArray[np.float64], Truths]:
    """Read series [count, steps, channels], NaN where a value is missing, and which are anomalies. Raises WrongArrays."""
    arrays = _arrays(path)
    values = _doubles(arrays["X"], (2, 3), "[series, steps, channels]", path.name)
    anomalous = _labels(arrays.get("y"), None, len(values), path.name)
    return values.reshape(*values.shape[:2], -1), anomalous


def _doubles(given: NDArray[Any], dimensions: tuple[int, ...], words: str, file: str) -> NDArray[np.float64]:
    if given.dtype.kind not in "fiub" or given.ndim not in dimensions or not given.size:
        raise WrongArrays(f"{file}: X is {given.dtype}{list(given.shape)}, where numbers {words} belong")
    return check_finite(given.astype(np.float64), file)


def check_finite(values: NDArray[np.float64], file: str) -> NDArray[np.float64]:
    """The same [count, ...]: finite, but for what is missing. Raises WrongArrays."""
    infinite = np.isinf(values.reshape(len(values), -1)).any(1)
    if infinite.any():
        raise WrongArrays(f"{file}: row {infinite.argmax()} is infinite")
    return values


def read_items(path: Path) -> Labelled:
    """Read a file. Pictures become [count, channels, height, width] in [0, 1], all else is taken as it is. Raises WrongArrays."""
    arrays = _arrays(path)
    items = _floats(arrays["X"], path.name)
    for name in ("y", "masks", "prompts"):
        if name in arrays and (count := len(np.atleast_1d(arrays[name]))) != len(items):
            raise WrongArrays(f"{path.name}: {name} is of {count} items, X of {len(items)}")
    masks = arrays["masks"] != 0 if "masks" in arrays else None
    prompts = arrays.get("prompts", np.zeros(0, np.str_))
    if prompts.dtype.kind != "U" or prompts.ndim != 1:
        raise WrongArrays(
            f"{path.name}: prompts is {prompts.dtype}{list(prompts.shape)}, where texts [items] belong"
        )
    anomalous = _labels(arrays.get("y"), masks, len(items), path.name)
    features = _features(arrays.get("features"), items.shape, path.name)
    return Labelled(items, anomalous, path.name, masks, tuple(prompts.tolist()), features)


def _features(given: NDArray[Any] | None, shape: tuple[int, ...], file: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if given.dtype.kind != "U" or len(shape) != 2 or given.shape != shape[1:]:
        raise WrongArrays(
            f"{file}: features is {given.dtype}{list(given.shape)}, where names of the columns of X{list(shape)} belong"
        )
    return tuple(given.tolist())


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            arrays = dict(stored) if isinstance(stored, np.lib.npyio.NpzFile) else {}
    except FileNotFoundError as error:
        raise WrongArrays(f"{path.name} cannot be read: {error.strerror}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WrongArrays(f"{path.name} cannot be read as an .npz of arrays: {error!s:.200}") from error
    if "X" not in arrays:
        raise WrongArrays(f"{path.name} has no array X, only {', '.join(sorted(arrays)) or 'none at all'}")
    return arrays


def _floats(given: NDArray[Any], file: str) -> Floats:
    if given.dtype.kind not in "fiub" or given.ndim < 2 or not given.size:
        raise WrongArrays(f"{file}: X is {given.dtype}{list(given.shape)}, where numbers [items, ...] belong")
    if given.dtype == np.uint8 and given.ndim in {3, 4}:
        given = _channels_first(given) / 255
    with np.errstate(over="ignore"):
        items = given.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(items.reshape(len(items), -1)).all(1))
    if wrong.size:
        raise WrongArrays(f"{file}: X[{wrong[0]}] is not finite in float32 ({wrong.size} such items)")
    return items


def _channels_first(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pictures.ndim == 3:
        return pictures[:, None]
    last = pictures.shape[3] in _CHANNELS and pictures.shape[1] not in _CHANNELS
    return np.moveaxis(pictures, 3, 1) if last else pictures


def _labels(given: NDArray[Any] | None, masks: Truths | None, count: int, file: str) -> Truths:
    """As `y` says, else those with a defect."""
    defects: Truths = (
        np.zeros(count, np.bool_) if masks is None else np.logical_or.reduce(masks.reshape(count, -1), axis=1)
    )
    if given is None:
        return defects
    if given.size != count:
        raise WrongArrays(f"{file}: y has {given.size} labels for {count} items")
    if not np.isin(given, (0, 1)).all():
        raise WrongArrays(f"{file}: a label in y is 0 (normal) or 1 (anomaly)")
    labels = given.reshape(-1).astype(np.bool_)
    if (contradicted := np.flatnonzero(defects & ~labels)).size:
        raise WrongArrays(f"{file}: item {contradicted[0]} is normal by y, and its mask shows a defect")
    return labels
