"""A batch of rows run through a decoder graph as a server runs it: caches bound in place, lengths per row. For checks only."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model_store.export.hf.job import past_names, present_names

Array = npt.NDArray[Any]


class Bound(Protocol):
    """A run whose inputs and outputs are fixed."""

    def run(self) -> None:
        """Run once."""
        ...


class Opens(Protocol):
    """An open graph."""

    def bind(self, inputs: dict[str, Array], outputs: dict[str, Array]) -> Bound:
        """Fix inputs and outputs."""
        ...


class Rows:
    """`batch` rows with caches of `cache` places; `layers` are (kv_heads, head_dim), `dtype` the state's.

    Logits are of the same type, but float32 beside an int8 state. `adapters` i64 [batch]: the adapter each row wants, where the
    graph has some (0: none of them).
    """

    def __init__(
        self,
        session: Opens,
        layers: Sequence[tuple[int, int]],
        *,
        vocabulary: int,
        batch: int,
        cache: int,
        dtype: str = "float32",
        adapters: Array | None = None,
    ) -> None:
        self.session, self.vocabulary, self.dtype = session, vocabulary, dtype
        self.lengths = np.zeros(batch, np.int32)
        self._wanted = (
            {}
            if adapters is None
            else {"adapter_row": np.arange(batch), "adapter": adapters.astype(np.int64)}
        )
        shapes = [(batch, kv_heads, cache, head_dim) for kv_heads, head_dim in layers for _ in range(2)]
        self.past = {
            name: np.zeros(shape, dtype) for name, shape in zip(past_names(len(layers)), shapes, strict=True)
        }
        self._present = dict(zip(present_names(len(layers)), self.past.values(), strict=True))

    def inputs(self, ids: Array, select: Array, counts: Array) -> dict[str, Array]:
        """The feeds of a step that adds `counts` [batch] tokens of `ids` [batch, time] to the rows."""
        lengths = self.lengths + counts.astype(np.int32)
        return {
            "input_ids": np.ascontiguousarray(ids, np.int64),
            "select": np.ascontiguousarray(select, np.int64),
            "seqlens_k": lengths - 1,
            "total_sequence_length": np.array(lengths.max(), np.int32),
            **self._wanted,
            **self.past,
        }

    def step(self, ids: Array, select: Array, counts: Array) -> Array:
        """Run it; logits f32 [batch, selected, vocabulary]."""
        dtype = "float32" if self.dtype == "int8" else self.dtype
        logits = np.empty((*select.shape, self.vocabulary), dtype)
        self.session.bind(self.inputs(ids, select, counts), {"logits": logits, **self._present}).run()
        self.lengths = self.lengths + counts.astype(np.int32)
        return logits.astype(np.float32, copy=False)

    def prefill(self, prompts: Sequence[Array]) -> list[Array]:
        """New prompts of different lengths in one right-padded run; logits [length, vocabulary] of each."""
        counts = np.array([len(each) for each in prompts])
        ids = np.zeros((len(prompts), counts.max()), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        select = np.tile(np.arange(ids.shape[1]), (len(prompts), 1))
        logits = self.step(ids, select, counts)
        return [logits[row, :count] for row, count in enumerate(counts)]

    def decode(self, tokens: Array) -> Array:
        """One more token for every row; logits [batch, vocabulary]."""
        batch = len(self.lengths)
        return self.step(
            np.reshape(tokens, (batch, 1)), np.zeros((batch, 1), np.int64), np.ones(batch, np.int32)
        )[:, 0]
