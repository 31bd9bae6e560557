"""The recorded run of a text graph that is replayed wherever it is opened: two rows of different lengths, one token each, greedy.

Chosen among several so that no other machine's rounding can make another token the most probable one.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from model_store.export.hf.rows import Array, Opens, Rows

LENGTHS = (5, 3)
CACHE = 8
TRIES = 16
SEED = 7


def greedy_controls(batch: int, selected: int, vocabulary: int) -> dict[str, Array]:
    """The sampler's inputs where every row takes its most probable token and nothing is edited."""
    zeros, ones = np.zeros(batch, np.float32), np.ones(batch, np.float32)
    return {
        "target": np.full((batch, selected), -1),
        "temperature": zeros,
        "top_k": np.zeros(batch, np.int64),
        "top_p": ones,
        "min_p": zeros,
        "uniform": zeros,
        "edit_token": np.zeros((batch, 0), np.int64),
        "edit_scale": np.ones((batch, 0), np.float32),
        "edit_add": np.zeros((batch, 0), np.float32),
        "mask_row": np.zeros(0, np.int64),
        "mask": np.zeros((0, -(-vocabulary // 32)), np.int32),
        "candidates": np.zeros(1, np.int64),
        "alternatives": np.zeros(1, np.int64),
    }


def golden_case(
    session: Opens, layers: Sequence[tuple[int, int]], vocabulary: int, dtype: str, *, adapters: bool = False
) -> Mapping[str, Array]:
    """Inputs of the joined graph, for the step of `TRIES` whose two most probable tokens are furthest apart in both rows.

    With `adapters` the second row has the first of the graph's.
    """
    wanted = np.arange(len(LENGTHS)) if adapters else None
    generator = np.random.default_rng(SEED)
    best, chosen = -1.0, dict[str, Array]()
    for _ in range(TRIES):
        rows = Rows(
            session,
            layers,
            vocabulary=vocabulary,
            batch=len(LENGTHS),
            cache=CACHE,
            dtype=dtype,
            adapters=wanted,
        )
        rows.prefill([generator.integers(0, vocabulary, length) for length in LENGTHS])
        ids = generator.integers(0, vocabulary, (len(LENGTHS), 1))
        select, counts = np.zeros_like(ids), np.ones(len(LENGTHS), np.int64)
        inputs = {name: array.copy() for name, array in rows.inputs(ids, select, counts).items()}
        top = np.partition(rows.step(ids, select, counts)[:, 0], -2)[:, -2:]
        margin = float((top[:, 1] - top[:, 0]).min())
        if margin > best:
            best, chosen = margin, inputs
    return chosen | greedy_controls(len(LENGTHS), 1, vocabulary)
