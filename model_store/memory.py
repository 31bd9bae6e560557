"""Pieces of memory that graphs read and write in place: pointers with a shape and an owner. Allocates nothing."""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.device import HOST, Device

Array: TypeAlias = NDArray[Any]

# An ONNX file that copies bytes: `y = Identity(x)`, uint8 [n]. The one way to move a slice of device memory that works
# on every provider; a test compares it with what `onnx.helper` writes.
COPY_GRAPH: Final = bytes.fromhex(
    "080a3a390a100a017812017922084964656e746974791201635a100a0178120b0a09080212050a0312016e"
    "62100a0179120b0a09080212050a0312016e42040a001014"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of memory to bind: `owner` keeps alive what `pointer` points to."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: Device
    owner: object


def place_of(memory: Array | Place, *, writeable: bool = False) -> Place:
    """Where an array lies. Raises ValueError for one that is scattered, or read-only where it will be written."""
    if isinstance(memory, Place):
        return memory
    if not memory.flags.c_contiguous or (writeable and not memory.flags.writeable):
        raise ValueError("an array to bind must be contiguous, and writeable where the graph writes")
    return Place(memory.ctypes.data, memory.shape, memory.dtype, HOST, memory)


def target_of(place: Place) -> tuple[str, int, np.dtype[Any], tuple[int, ...], int]:
    """Arguments of ONNX Runtime's `bind_input` and `bind_output` after the name."""
    return place.device.kind, place.device.index, place.dtype, place.shape, place.pointer


def flat(memory: Array | Place) -> Array | Place:
    """The same memory as bytes in a row."""
    if isinstance(memory, Place):
        return replace(memory, shape=(bytes_of(memory),), dtype=np.dtype(np.uint8))
    return memory.reshape(-1).view(np.uint8)


def bytes_of(place: Place) -> int:
    """Size of a place."""
    return math.prod(place.shape) * place.dtype.itemsize
