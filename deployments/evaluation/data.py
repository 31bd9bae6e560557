"""Reads held-out items: folders of pictures, `.npz` files. Nothing is downloaded.

pictures/*.png                                    pictures
pictures/<class>/*.png                            pictures in groups
[test/]good/*.png, [test/]<defect>/*.png          normal items and anomalies, with masks if there are
    ground_truth/<defect>/<picture>_mask.png      (MVTec AD's layout)
    metadata.jsonl   {"file_name", "text"}        what pictures are of, in words (as Hugging Face's ImageFolder has it)
file.npz                                          see `model_store.labelled`
"""

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from deployments.errors import BadRequest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Data
from deployments.pictures import decode
from model_store import labelled
from model_store.imaging import Image
from model_store.labelled import Floats, Labelled, Truths, WrongArrays

PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
GOOD: Final = "good"
_MASKS: Final = "ground_truth"
_TEST: Final = "test"
_CAPTIONS: Final = "metadata.jsonl"
_HALF: Final = 127


@dataclass(frozen=True)
class Items:
    """Held-out items in a model's own shape. `labels` are true for anomalies; without labels, nothing is known of them."""

    values: Floats  # [items, ...]
    groups: tuple[str, ...]
    labels: Truths | None = None
    masks: Truths | None = None  # [items, height, width], true in defects
    captions: tuple[str, ...] = ()  # what each is of, in words

    @property
    def prompts(self) -> tuple[str, ...]:
        """What to ask for to get such pictures: their captions, or the folders they lie in; nothing where one has neither."""
        said = self.captions or self.groups
        return said if all(said) else ()


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
    names = [str(file.relative_to(root)) for file in files]
    captions = _captions(root / _CAPTIONS, names) if (root / _CAPTIONS).exists() else ()
    contents = [*map(str.encode, (*names, *captions)), *raw, drawn.tobytes() if drawn is not None else b""]
    return Items(values, groups, labels, drawn, captions), described(path, digest(contents, limit), groups)


def _captions(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        told = {line["file_name"]: str(line["text"]) for line in lines}
        return tuple(told[name] for name in names)
    except (OSError, ValueError, TypeError) as error:
        raise EvaluationError(f"{file} cannot be read as lines of JSON: {error}") from error
    except KeyError as error:
        raise EvaluationError(
            f"{file} lacks {error}: each picture has a line with its file_name and its text"
        ) from error


def _picture(file: Path, content: bytes, shape: Sequence[int]) -> Floats:
    channels, height, width = shape
    try:
        return decode(content, channels, width, height, file.name)
    except BadRequest as error:
        raise EvaluationError(f"{file}: {error}") from error


def _masks(files: Sequence[Path], groups: Sequence[str], folder: Path, shape: Sequence[int]) -> Truths:
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


def _mask(file: Path, shape: Sequence[int]) -> Truths:
    try:
        with Pillow.open(io.BytesIO(file.read_bytes())) as picture:
            sized = picture.convert("L").resize((shape[2], shape[1]), Pillow.Resampling.NEAREST)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise EvaluationError(f"{file} is no picture") from error
    return np.asarray(sized) > _HALF


# -- arrays -------------------------------------------------------------------------------------------------------------


def _arrays(path: Path, shape: Sequence[int], image: Image | None, limit: int | None) -> tuple[Items, Data]:
    try:
        data, seal = labelled.read_items(path), digest([path.read_bytes()], limit)
    except WrongArrays as error:
        raise EvaluationError(str(error)) from error
    places = chosen(len(data.items), limit)
    values = _shaped(data, shape, image)[places]
    known = bool(data.anomalous.any())
    labels = data.anomalous[places] if known else None
    groups = tuple(("anomaly" if each else GOOD) if known else "" for each in data.anomalous[places])
    masks = None
    if data.masks is not None:
        if data.masks[0].size != math.prod(shape[-2:]):
            raise EvaluationError(
                f"masks of {data.file} have shape {list(data.masks.shape[1:])}, not {list(shape[-2:])}"
            )
        masks = data.masks[places].reshape(len(places), *shape[-2:])
    captions = tuple(data.prompts[place] for place in places) if data.prompts else ()
    return Items(values, groups, labels, masks, captions), described(path, seal, groups)


def _shaped(data: Labelled, shape: Sequence[int], image: Image | None) -> Floats:
    """As the model takes them: pictures may have their channels last, and be laid flat."""
    items = data.items
    if items[0].size != math.prod(shape):
        raise EvaluationError(
            f"the items of {data.file} have shape {list(items.shape[1:])}, and the model takes {list(shape)}"
        )
    if image and (items.min() < 0 or items.max() > 1):
        raise EvaluationError(
            f"the items of {data.file} go from {items.min():.4g} to {items.max():.4g}, where pictures have values in [0, 1]"
        )
    if image and items.shape[1:] == (*shape[1:], shape[0]):
        items = np.moveaxis(items, -1, 1)
    return np.ascontiguousarray(items).reshape(len(items), *shape)


def described(path: Path, seal: str, groups: Sequence[str]) -> Data:
    """What the record says of the data; `groups` are those of the items."""
    counts = Counter(group for group in groups if group)
    return Data(name=path.resolve().name, digest=seal, items=len(groups), groups=dict(sorted(counts.items())))
