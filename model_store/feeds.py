"""What graphs that read items take beside them where nobody says otherwise. Knows no model."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_store.manifest import Tensor

_USUAL: Final = {"known": 1}  # nothing is missing; everything else, such as noise, is zero


def feeds(inputs: Sequence[Tensor], items: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every input by its name, for items [batch, ...]."""
    return {each.name: items if each.role == "input" else _usual(each, len(items)) for each in inputs}


def _usual(tensor: Tensor, count: int) -> NDArray[Any]:
    sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
    return np.full((count, *sizes), _USUAL.get(tensor.role, 0), tensor.dtype)
