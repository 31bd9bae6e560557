"""Input items to model inputs: encoded pictures and tensors, checked against what the model takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.messages import ImageItem, Item, Numbers, RowItem, SeriesItem, TensorItem
from deployments.pictures import MAX_PIXELS, decode, fitted, read_picture
from deployments.pieces import all_finite, pieces
from model_store.imaging import Image
from model_store.session import Array

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]

_FLOAT_BYTES: Final = 4
_MOST_DIMENSIONS: Final = 16


@dataclass(frozen=True, slots=True)
class ReadItem:
    """A row of the model's input, by role: what is read already."""

    feeds: Mapping[str, Array]


def vector(data: Numbers, size: int, param: str) -> Array:
    """Float32 [size] of a flat list or raw little-endian float32. Raises BadRequest naming `param`."""
    array, shape = _numbers(data, param)
    if shape != (size,):
        raise BadRequest(f"The model takes {size} numbers, not shape {list(shape)}.", param=param)
    return array


def tensor(item: TensorItem, wanted: tuple[int, ...], param: str) -> Array:
    """The item's numbers in the model's shape. Raises BadRequest naming a part of `param`.

    A flat list may stand for any shape; dimensions of size 1 may be left out or added.
    """
    array, nested = _numbers(item.data, f"{param}.data")
    given = nested if item.shape is None else item.shape
    if item.shape is not None and len(nested) > 1 and item.shape != nested:
        raise BadRequest(f"The data is nested as {list(nested)}.", param=f"{param}.shape")
    shaped = item.shape is not None or len(given) > 1
    if shaped and given != wanted and _squeezed(given) != _squeezed(wanted):
        raise BadRequest(f"The model takes shape {list(wanted)}, not {list(given)}.", param=f"{param}.shape")
    if array.size != math.prod(wanted):
        raise BadRequest(
            f"The model takes shape {list(wanted)}, not {array.size} numbers.", param=f"{param}.data"
        )
    return array.reshape(wanted)


def _squeezed(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _numbers(data: Numbers | Doubles, param: str) -> tuple[Floats, tuple[int, ...]]:
    """Flat float32 numbers, and how they were nested. Raises BadRequest for anything but finite numbers."""
    if isinstance(data, list):
        return _listed(data, param)
    if isinstance(data, np.ndarray):
        array, shape = _single(data.ravel()), data.shape
    elif len(data) % _FLOAT_BYTES:
        raise BadRequest("The data is not a whole number of float32 values.", param=param)
    else:
        array = np.frombuffer(bytearray(data), np.float32)
        shape = array.shape
    if not all_finite(array):
        raise _not_finite(param)
    return array, shape


def _single(values: Doubles) -> Floats:
    """In single precision; what is beyond it is infinite."""
    array = np.empty(values.size, np.float32)
    with np.errstate(over="ignore"):
        for piece in pieces(values.size):
            array[piece] = values[piece]
    return array


def _listed(data: list[Any], param: str) -> tuple[Floats, tuple[int, ...]]:
    flat, shape = _flat(data, param)
    # By exact type: `true` is no number.
    if not set(map(type, flat)) <= {int, float}:
        raise BadRequest("The data must be numbers in lists of equal length.", param=param)
    # In ways that keep hold of the interpreter: what lets go of it waits for the engine to give it back.
    try:
        with np.errstate(over="raise"):
            array = np.fromiter(flat, np.float32, len(flat))
    except (OverflowError, FloatingPointError):
        raise _not_finite(param) from None
    if not math.isfinite(sum(flat)):
        raise _not_finite(param)
    return array, shape


def _not_finite(param: str) -> BadRequest:
    return BadRequest("The numbers must be finite in float32.", param=param)


def _flat(data: list[Any], param: str) -> tuple[list[Any], tuple[int, ...]]:
    shape = [len(data)]
    while data and isinstance(data[0], list):
        width = len(data[0])
        if len(shape) == _MOST_DIMENSIONS or any(
            not isinstance(part, list) or len(part) != width for part in data
        ):
            raise BadRequest("The data must be numbers in lists of equal length.", param=param)
        data = list(chain.from_iterable(data))
        shape.append(width)
    return data, tuple(shape)


class Items:
    """Reads items for one model."""

    def __init__(
        self, shape: tuple[int | str, ...], image: Image | None, most_pixels: int = MAX_PIXELS
    ) -> None:
        self.shape = _own(shape, image)
        self.numbers = math.prod(self.shape)  # in one item
        self._image = image
        self._most_pixels = most_pixels

    @property
    def pictures(self) -> bool:
        """Whether the model's items can be shown as pictures."""
        return self._image is not None

    def feeds(self, item: Item | ReadItem, param: str) -> dict[str, Array]:
        """What the model takes of the item, by role. Raises BadRequest."""
        return dict(item.feeds) if isinstance(item, ReadItem) else {"input": self.read(item, param)}

    def read(self, item: Item, param: str) -> Array:
        """The item as the model's input, float32 `shape`. Raises BadRequest."""
        match item:
            case TensorItem():
                return tensor(item, self._wanted(item, f"{param}.tensor.shape"), f"{param}.tensor")
            case ImageItem():
                return self._picture(item, f"{param}.image")
            case RowItem():
                raise BadRequest("This model takes no table rows.", param=f"{param}.features")
            case SeriesItem():
                raise BadRequest("This model takes no series.", param=f"{param}.series")

    def _wanted(self, item: TensorItem, param: str) -> tuple[int, ...]:
        """The model's shape; where its pictures vary, the item's own."""
        if self._image is None or self._image.resize.mode != "keep":
            return self.shape
        resize, sides = self._image.resize, (item.shape or _nesting(item.data))[-2:]
        if len(sides) < 2 or not resize.allows(sides):
            raise BadRequest(
                f"Sides are multiples of {resize.multiple} up to {resize.largest}: say the shape.",
                code="invalid_size",
                param=param,
            )
        return (self._image.channels, *sides)

    def _picture(self, item: ImageItem, param: str) -> Array:
        image = self._image
        if image is None:
            raise BadRequest("This model takes tensors, not images.", param=param)
        if image.resize.mode == "keep":
            pixels = read_picture(item.data, image.channels, param, self._most_pixels)
            return fitted(pixels, *image.resize.sides(*pixels.shape[1:]))
        return decode(
            item.data, image.channels, image.width, image.height, param, self._most_pixels, image.resize.mode
        )


def _own(shape: tuple[int | str, ...], image: Image | None) -> tuple[int, ...]:
    """The shape of an item of the model's own size."""
    if image is not None and image.resize.mode == "keep":
        return (image.channels, image.height, image.width)
    return tuple(map(int, shape))


def _nesting(data: Numbers | Doubles) -> tuple[int, ...]:
    """How lists are nested, by the first of each."""
    if isinstance(data, np.ndarray):
        return data.shape
    shape: list[int] = []
    while isinstance(data, list) and len(shape) < _MOST_DIMENSIONS:
        shape.append(len(data))
        data = data[0] if data else b""
    return tuple(shape)
