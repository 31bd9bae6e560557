"""Arrays in pieces for which numpy keeps hold of the interpreter.

It lets go for more numbers, and the event loop then waits until the engine gives it back: at 16 connections 0.2 ms each time.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_HELD: Final = 500  # numbers
# Larger arrays take longer in pieces than to wait.
_FEW: Final = 16 * _HELD


def pieces(size: int) -> list[slice]:
    """Of a flat array of so many numbers."""
    step = _HELD if size <= _FEW else size
    return [slice(first, first + step) for first in range(0, size, step)]


def all_finite(values: NDArray[Any]) -> bool:
    """Whether no number is infinite or NaN."""
    flat = values.reshape(-1)
    for piece in pieces(flat.size):
        found = np.isfinite(flat[piece])
        if np.count_nonzero(found) < found.size:  # in a third of the time of `all`
            return False
    return True
