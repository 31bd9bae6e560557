"""Bodies with tensors in them: lists of numbers become arrays without a Python object for each number.

Only what is regular is read here. All else is left to `admission.parse`, which takes much longer and says what is wrong.
"""

from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from simdjson import Array, Object, Parser

from service.admission import marks, parse

# Lists show by their commas in the first bytes.
_SAMPLE: Final = 1024
_FEW: Final = 16
# Larger objects and deeper bodies have no tensors in them: each member is looked for among all.
_MOST_MEMBERS: Final = 64
_MOST_LEVELS: Final = 32
_MOST_DIMENSIONS: Final = 16


def parse_tensors(body: bytes) -> dict[str, Any]:
    """As `parse`, but a list of numbers under a key `data` is an array of float64 in the list's shape. Raises BadRequest."""
    if body.count(b",", 0, _SAMPLE) > _FEW:
        try:
            return _read(body)
        except (ValueError, TypeError, RuntimeError):  # simdjson's, too
            pass
    return parse(body)


def _read(body: bytes) -> dict[str, Any]:
    """Raises ValueError, TypeError and RuntimeError for what `parse` might read otherwise. Raises BadRequest."""
    # simdjson skips a BOM, and has its own opinion of escapes.
    if not body.startswith(b"{") or b"\\" in body:
        raise ValueError("not plain")
    expected, reading = marks(body), _Reading()
    value: dict[str, Any] = reading.value(Parser().parse(body), 0)
    if (reading.members, reading.containers) != expected:
        raise ValueError("given twice, or not looked at")
    return value


class _Reading:
    """The value of a parsed body, and how many members of objects, objects and lists it has."""

    def __init__(self) -> None:
        self.members = self.containers = 0

    def value(self, part: Any, level: int) -> Any:
        """Raises ValueError and TypeError."""
        if not isinstance(part, Object | Array):
            return part
        if level > _MOST_LEVELS:
            raise ValueError("too deep")
        if isinstance(part, Object):
            return self._members(part, level + 1)
        self.containers += 1
        if len(part) and isinstance(part[0], Object | Array):
            return [self.value(each, level + 1) for each in part]
        return part.as_list()

    def _members(self, part: Object, level: int) -> dict[str, Any]:
        if len(part) > _MOST_MEMBERS:
            raise ValueError("too many members")
        found: dict[str, Any] = {}
        for key in part:
            each = part[key]
            if key == "data" and isinstance(each, Array):
                found[key] = self._array(each)
            else:
                found[key] = self.value(each, level)
        self.containers += 1
        self.members += len(found)
        return found

    def _array(self, numbers: Array) -> NDArray[np.float64]:
        """Raises ValueError for lists of several lengths and TypeError for what is no number."""
        level: list[Any] = [numbers]
        shape: list[int] = []
        while True:
            self.containers += len(level)
            sizes = set(map(len, level))
            shape.append(sizes.pop())
            if sizes or not shape[-1] or len(shape) > _MOST_DIMENSIONS:
                raise ValueError("lists of several lengths")
            if not isinstance(level[0][0], Array):
                break
            level = list(chain.from_iterable(level))
        return np.frombuffer(numbers.as_buffer(of_type="d")).reshape(shape)
