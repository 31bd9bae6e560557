"""Counter-based random numbers: a stream is a function of its seed and place alone, whoever shares the batch."""

from typing import Final

import numpy as np

from deployments.messages import Draw
from model_store.session import Array

SEEDS: Final = 1 << 63


def seed_of(request: Draw, place: int) -> int:
    """The seed of a request's picture: alone, that seed draws the same one."""
    return (request.seed + place) % SEEDS


def stream(seed: int, place: int) -> np.random.Generator:
    """Generator of the row at `place` of a request with this seed.

    Philox4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): number k is a hash of (seed, place, k).
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, place], dtype=np.uint64)))


def noise(seed: int, place: int, size: int) -> Array:
    """Standard normal float32 [size] of the row at `place`."""
    return stream(seed, place).standard_normal(size, dtype=np.float32)
