"""Ways from one latent to another. Knows no model."""

import math
from typing import Literal

import numpy as np

from model_store.session import Array


def between(start: Array, end: Array, steps: int, mode: Literal["linear", "slerp"]) -> list[Array]:
    """So many latents from `start` to `end`, both included."""
    way = _slerp if mode == "slerp" else _linear
    return [way(start, end, t) for t in np.linspace(0, 1, steps).tolist()]


def _linear(start: Array, end: Array, t: float) -> Array:
    return (1 - t) * start + t * end


def _slerp(start: Array, end: Array, t: float) -> Array:
    """Along the great circle (Shoemake 1985); straight where the ends are (nearly) parallel or one is zero."""
    length = float(np.linalg.norm(start)) * float(np.linalg.norm(end))
    cosine = float(np.dot(start, end)) / length if length > 0 else 1.0
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-6:
        return _linear(start, end, t)
    # The quotients first: they are exactly 1 and 0 at the ends.
    return math.sin((1 - t) * angle) / math.sin(angle) * start + math.sin(t * angle) / math.sin(angle) * end
