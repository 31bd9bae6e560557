"""Reads held-out items: folders of pictures, `.npz` files. Nothing is downloaded.

pictures/*.png                                    pictures
pictures/<class>/*.png                            pictures in groups
[test/]good/*.png, [test/]<defect>/*.png          normal items and anomalies, with masks if there are
    ground_truth/<defect>/<picture>_mask.png      (MVTec AD's layout)
file.npz   X [items, ...], y [items] (0 is normal, anything else is not), masks [items, height, width]
"""

import hashlib
import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from deployments.errors import BadRequest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Data
from deployments.pictures import decode
from model_store.imaging import Image

Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
GOOD: Final = "good"
_MASKS: Final = "ground_truth"
_TEST: Final = "test"
_HALF: Final = 127


@dataclass(frozen=True)
class Items:
    """Held-out items in a model's own shape. `labels` are true for anomalies; without labels, nothing is known of them."""

    values: Floats  # [items, ...]
    groups: tuple[str, ...]
    labels: Mask | None = None
    masks: Mask | None = None  # [items, height, width], true in defects


def read_items(
    path: Path, shape: Sequence[int], image: Image | None, limit: int | None
) -> tuple[Items, Data]:
    """Items for a model that takes `shape`. Of more than `limit` of them, a fixed choice. Raises EvaluationError."""
    if path.suffix == ".npz":
        return _arrays(path, shape, image, limit)
    if not path.is_dir():
        raise EvaluationError(f"{path} is neither a folder of pictures nor an .npz file")
    if image is None:
        raise EvaluationError("this model takes numbers, not pictures: give an .npz file")
    return _folder(path, shape, limit)


def chosen(count: int, limit: int | None) -> list[int]:
    """Places of a fixed random choice of at most `limit` of `count` items, in order."""
    if limit is None or count <= limit:
        return list(range(count))
    return sorted(np.random.Generator(np.random.Philox(0)).permutation(count)[:limit].tolist())


def digest(contents: Iterable[bytes], limit: int | None) -> str:
    """What two evaluations on the same items have in common."""
    whole = hashlib.sha256(repr(limit).encode())
    for content in contents:
        whole.update(hashlib.sha256(content).digest())
    return f"sha256:{whole.hexdigest()}"


# -- folders ------------------------------------------------------------------------------------------------------------


def _folder(path: Path, shape: Sequence[int], limit: int | None) -> tuple[Items, Data]:
    root = path / _TEST if (path / _TEST).is_dir() else path
    masks = root.parent / _MASKS if (root.parent / _MASKS).is_dir() else root / _MASKS
    files = sorted(
        file for file in root.rglob("*") if file.suffix.lower() in PICTURES and masks not in file.parents
    )
    files = [files[place] for place in chosen(len(files), limit)]
    if not files:
        raise EvaluationError(f"there are no pictures in {path}")
    raw = [file.read_bytes() for file in files]
    groups = tuple(str(file.parent.relative_to(root)) if file.parent != root else "" for file in files)
    values = np.empty((len(files), *shape), np.float32)
    for place, (file, content) in enumerate(zip(files, raw, strict=True)):
        values[place] = _picture(file, content, shape)
    labels = np.array([group != GOOD for group in groups]) if GOOD in groups else None
    drawn = _masks(files, groups, masks, shape) if labels is not None and masks.is_dir() else None
    names = [str(file.relative_to(root)).encode() for file in files]
    contents = [*names, *raw, drawn.tobytes() if drawn is not None else b""]
    return Items(values, groups, labels, drawn), _described(path, digest(contents, limit), groups)


def _picture(file: Path, content: bytes, shape: Sequence[int]) -> Floats:
    channels, height, width = shape
    try:
        return decode(content, channels, width, height, file.name)
    except BadRequest as error:
        raise EvaluationError(f"{file}: {error}") from error


def _masks(files: Sequence[Path], groups: Sequence[str], folder: Path, shape: Sequence[int]) -> Mask:
    """The mask of every picture, empty for normal ones."""
    masks = np.zeros((len(files), *shape[1:]), bool)
    for place, (file, group) in enumerate(zip(files, groups, strict=True)):
        if group == GOOD:
            continue
        names = [f"{file.stem}_mask.png", f"{file.stem}.png", f"{file.stem}_mask.bmp"]
        found = next((folder / group / name for name in names if (folder / group / name).exists()), None)
        if found is None:
            raise EvaluationError(f"{file} has no mask in {folder / group}")
        masks[place] = _mask(found, shape)
    return masks


def _mask(file: Path, shape: Sequence[int]) -> Mask:
    try:
        with Pillow.open(io.BytesIO(file.read_bytes())) as picture:
            sized = picture.convert("L").resize((shape[2], shape[1]), Pillow.Resampling.NEAREST)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise EvaluationError(f"{file} is no picture") from error
    return np.asarray(sized) > _HALF


# -- arrays -------------------------------------------------------------------------------------------------------------


def _arrays(path: Path, shape: Sequence[int], image: Image | None, limit: int | None) -> tuple[Items, Data]:
    try:
        raw = path.read_bytes()
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("X", "y", "masks") if name in file}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path} is no .npz file of arrays: {error}") from error
    if "X" not in arrays or not len(arrays["X"]):
        raise EvaluationError(f"{path} has no array 'X' with an item in each row")
    if any(len(each) != len(arrays["X"]) for each in arrays.values()):
        raise EvaluationError(f"the arrays of {path} are not equally long")
    places = chosen(len(arrays["X"]), limit)
    arrays = {name: each[places] for name, each in arrays.items()}
    values = _shaped(path, arrays["X"], shape, image)
    labels = masks = None
    groups = ("",) * len(values)
    if "y" in arrays:
        labels = _sized(path, "y", arrays["y"], ()) != 0
        groups = tuple("anomaly" if each else GOOD for each in labels)
    if "masks" in arrays:
        masks = _sized(path, "masks", arrays["masks"], shape[-2:]) != 0
    return Items(values, groups, labels, masks), _described(path, digest([raw], limit), groups)


def _sized(path: Path, name: str, array: NDArray[np.generic], shape: Sequence[int]) -> NDArray[np.generic]:
    """One such array for each item."""
    if array.size != len(array) * math.prod(shape):
        raise EvaluationError(f"{name!r} of {path} has shape {list(array.shape)}, not {['items', *shape]}")
    return array.reshape(len(array), *shape)


def _shaped(path: Path, values: NDArray[np.generic], shape: Sequence[int], image: Image | None) -> Floats:
    """As the model takes them: whole numbers of pictures are shares of 255, the channels may come last."""
    if values[0].size != math.prod(shape):
        raise EvaluationError(
            f"the items of {path} have shape {list(values.shape[1:])}, and the model takes {list(shape)}"
        )
    numbers = values.astype(np.float32)
    if image and values.dtype == np.uint8:
        numbers /= 255
    if image and values.shape[1:] == (*shape[1:], shape[0]):
        numbers = np.moveaxis(numbers, -1, 1)
    numbers = np.ascontiguousarray(numbers).reshape(len(values), *shape)
    if not np.isfinite(numbers).all():
        raise EvaluationError(
            f"item {int(np.argmax(~np.isfinite(numbers.reshape(len(values), -1)).all(1)))} of {path} is not finite"
        )
    return numbers


def _described(path: Path, seal: str, groups: Sequence[str]) -> Data:
    counts = Counter(group for group in groups if group)
    return Data(name=path.resolve().name, digest=seal, items=len(groups), groups=dict(sorted(counts.items())))
