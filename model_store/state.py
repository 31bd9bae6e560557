"""Memory on a graph's device for what its rows keep between runs: cut into slots, moved, copied. Knows no batching."""

import contextlib
import ctypes
import functools
import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from model_store.device import HOST, Device
from model_store.memory import COPY_GRAPH, Array, Place, bytes_of, flat, place_of
from model_store.session import Session, device_memory


class StateBuffer:
    """Zeroed memory on a device for the state of `slots` rows: [slots, *row_shape], rows one after another."""

    def __init__(
        self, slots: int, row_shape: Sequence[int], dtype: DTypeLike = np.float32, device: Device = HOST
    ) -> None:
        self.shape = (slots, *row_shape)
        self.dtype = np.dtype(dtype)
        self.device = device
        self._row_bytes = math.prod(row_shape) * self.dtype.itemsize
        if device.kind == "cpu":
            array = _untouched(slots * self._row_bytes).view(self.dtype).reshape(self.shape)
            self._memory: object = array
            self._pointer = array.ctypes.data
        else:
            self._memory, self._pointer = device_memory(slots * self._row_bytes, device)

    def place(self, first: int = 0, count: int | None = None) -> Place:
        """Slots `first` to `first + count` (default: all from `first` on), to be bound. Raises ValueError outside."""
        count = self.shape[0] - first if count is None else count
        if first < 0 or count < 1 or first + count > self.shape[0]:
            raise ValueError(f"there are no slots {first} to {first + count} among {self.shape[0]}")
        pointer = self._pointer + first * self._row_bytes
        return Place(pointer, (count, *self.shape[1:]), self.dtype, self.device, self._memory)

    def move(self, source: int, target: int, *, axis: int | None = None, upto: int = 0) -> None:
        """Copy one slot to another; with `axis` (of a row's shape) only its places before `upto`, where that is cheaper."""
        if axis is not None and isinstance(self._memory, np.ndarray):
            part: tuple[Any, ...] = (*[slice(None)] * axis, slice(upto))
            self._memory[(target, *part)] = self._memory[(source, *part)]
        else:
            copy(self.place(source, 1), self.place(target, 1))

    def copy_from(self, other: "StateBuffer", first: int, count: int) -> None:
        """Copy slots `first` to `first + count` of a buffer like this one to the same places here."""
        copy(other.place(first, count), self.place(first, count))

    def clear(self, slot: int) -> None:
        """Zero one slot."""
        copy(np.zeros(self.shape[1:], self.dtype), self.place(slot, 1))

    def read(self, first: int = 0, count: int | None = None) -> Array:
        """A copy of some slots' content, on the host."""
        place = self.place(first, count)
        content = np.empty(place.shape, place.dtype)
        copy(place, content)
        return content


def _untouched(size: int) -> Array:
    """Zeroed bytes that take memory where they are written, page by page.

    Not `np.zeros`: it asks for huge pages, and 2 MB for the first token of each head make a cache take all it may ever need.
    """
    area = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux
        with contextlib.suppress(OSError):  # a kernel without them
            area.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(area, np.uint8, size)


def copy(source: Array | Place, target: Array | Place) -> None:
    """Copy memory of equal size to memory on the same device, or from or to the host. They must not overlap.

    Raises ValueError where sizes differ.
    """
    read, written = place_of(source), place_of(target, writeable=True)
    size = bytes_of(read)
    if size != bytes_of(written):
        raise ValueError(f"{size} bytes do not fit into {bytes_of(written)}")
    if read.device.kind == written.device.kind == "cpu":
        ctypes.memmove(written.pointer, read.pointer, size)
    else:
        copy_on(written.device if read.device.kind == "cpu" else read.device, source, target)


def copy_on(device: Device, source: Array | Place, target: Array | Place) -> None:
    """`copy` by a graph on `device`, which reaches memory that this process cannot."""
    _copier(device).bind({"x": flat(source)}, {"y": flat(target)}).run()


@functools.cache
def _copier(device: Device) -> Session:
    return Session(COPY_GRAPH, device=device)
