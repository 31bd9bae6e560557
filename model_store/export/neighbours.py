"""How far a row's outputs depend on the rows beside it: in exact arithmetic not at all, in a runtime's by its rounding.

Knows sessions and arrays; no model.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from model_store.export.cases import Array
from model_store.export.parity import SMALLEST_SCALE, Runs

LIMIT: Final = 1e-3
"""Largest difference of a row alone and among others, as a share of the largest output: more than rounding explains."""


def dependence(graph: Runs, feeds: Mapping[str, Array], outputs: Sequence[str]) -> float:
    """Largest difference between rows together, each alone, and in the opposite order, as a share of the largest value.

    0: the same bytes, at these batch sizes and places. Infinite where something is no number. Raises RunFailed.
    """
    rows = len(next(iter(feeds.values())))
    together = graph.run(feeds, outputs)
    turned = graph.run({name: each[::-1].copy() for name, each in feeds.items()}, outputs)
    alone = [
        graph.run({name: each[row : row + 1] for name, each in feeds.items()}, outputs) for row in range(rows)
    ]
    return max(
        _apart(found, other)
        for place, found in enumerate(together)
        for other in (turned[place][::-1], np.concatenate([each[place] for each in alone]))
    )


def _apart(found: Array, other: Array) -> float:
    if not (np.isfinite(found).all() and np.isfinite(other).all()):
        return float("inf")
    scale = max(float(np.abs(found).max()), SMALLEST_SCALE)
    return float(np.abs(found.astype(np.float64) - other).max()) / scale
