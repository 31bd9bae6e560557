"""What the sampler of a `step` graph is told of each slot, and where it answers. Knows no model and no state.

Its inputs of varying size (edits, masks, sorted candidates, reported alternatives) come in few sizes, so that few bindings
serve all batches and a batch pays for no more than its rows want.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Final

import numpy as np

from deployments.text.sequence import Chosen, Sequence
from model_store.session import Array

HEAD: Final = 128
"""Candidates of a row that samples without top_k; the graph looks at all tokens where they are not enough."""

ALTERNATIVES: Final = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one run's inputs."""

    rows: int
    edits: int = 0
    masked: bool = False
    candidates: int = 1
    alternatives: int = 0
    adapted: bool = False


def _bucket(size: int, most: int) -> int:
    """The next power of four, from 16 on, up to `most`; 0 stays 0."""
    bucket = 16 if size else 0
    while bucket < size:
        bucket *= 4
    return min(bucket, most)


class Controls:
    """Arrays of all slots; a run is bound to the first rows of them."""

    def __init__(self, slots: int, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.temperature = np.zeros(slots, np.float32)
        self.top_k = np.zeros(slots, np.int64)
        self.top_p = np.ones(slots, np.float32)
        self.min_p = np.zeros(slots, np.float32)
        self.uniform = np.zeros(slots, np.float32)
        self.target = np.full((slots, 1), -1, np.int64)
        self.select = np.zeros((slots, 1), np.int64)
        self.adapter = np.zeros(slots, np.int64)
        self._slots = slots
        self._words = -(-vocabulary // 32)
        self._candidates = np.ones(slots, np.int64)  # how many each row needs sorted
        self._edits: dict[int, tuple[Array, Array, Array]] = {}
        self._mask: Array | None = None
        self._rows = np.arange(slots)

    def admit(self, slot: int, work: Sequence) -> None:
        """Take over a row's parameters."""
        request = work.request
        self.temperature[slot] = request.temperature
        self.top_k[slot] = min(request.top_k, self.vocabulary)
        self.top_p[slot] = request.top_p
        self.min_p[slot] = request.min_p
        self.adapter[slot] = work.adapter
        sampled = request.temperature > 0
        self._candidates[slot] = (self.top_k[slot] or min(HEAD, self.vocabulary)) if sampled else 1

    def move(self, source: int, target: int) -> None:
        """Copy a slot's parameters."""
        for array in (
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.adapter,
            self._candidates,
        ):
            array[target] = array[source]

    def fill(self, rows: Seq[Sequence | None]) -> Shape:
        """Write what changes with every token, row i for slot i (None: takes no part); the sizes that this needs."""
        count = len(rows)
        edited, most, masked, adapted = 0, 0, False, False
        for slot, work in enumerate(rows):
            if work is None:
                continue
            request = work.request
            if request.temperature > 0:
                self.uniform[slot] = work.uniforms.next()
            if work.edits is not None:
                edited = max(edited, len(work.edits))
            most = max(most, request.logprobs or 0)
            masked = masked or work.words is not None
            adapted = adapted or work.adapter > 0
        sorts = int(self._candidates[:count].max())
        shape = Shape(
            count,
            _bucket(edited, self.vocabulary),
            masked,
            _bucket(sorts, self.vocabulary) if sorts > 1 else 1,
            min(ALTERNATIVES, self.vocabulary) if most else 0,
            adapted,
        )
        if shape.edits:
            self._fill_edits(rows, shape.edits)
        if shape.masked:
            self._fill_mask(rows)
        return shape

    def inputs(self, shape: Shape) -> dict[str, Array]:
        """Arrays to bind, by the names of the graph's inputs."""
        count = shape.rows
        token, scale, add = self._edit_arrays(shape.edits)
        masked = count if shape.masked else 0
        mask = self._mask_array()[:masked] if masked else np.zeros((0, self._words), np.int32)
        return {
            "temperature": self.temperature[:count],
            "top_k": self.top_k[:count],
            "top_p": self.top_p[:count],
            "min_p": self.min_p[:count],
            "uniform": self.uniform[:count],
            "target": self.target[:count],
            "select": self.select[:count],
            "edit_token": token[:count],
            "edit_scale": scale[:count],
            "edit_add": add[:count],
            "mask_row": self._rows[:masked],
            "mask": mask,
            **self._adapters(0, count if shape.adapted else 0),
            "candidates": np.zeros(shape.candidates, np.int64),
            "alternatives": np.zeros(shape.alternatives, np.int64),
        }

    def plain(self, first: int, selected: Array, target: Array, alternatives: int) -> dict[str, Array]:
        """Inputs of a run from slot `first` on that chooses nothing: greedy, without edits; `selected` and `target` i64 [rows, selected]."""
        rows = len(selected)
        inputs = self.inputs(Shape(rows, alternatives=alternatives))
        zeros = {"temperature": np.zeros(rows, np.float32)}
        adapted = rows if self.adapter[first : first + rows].any() else 0
        return {**inputs, **zeros, "select": selected, "target": target, **self._adapters(first, adapted)}

    def _adapters(self, first: int, count: int) -> dict[str, Array]:
        return {"adapter_row": self._rows[:count], "adapter": self.adapter[first : first + count]}

    def _edit_arrays(self, size: int) -> tuple[Array, Array, Array]:
        if size not in self._edits:
            wide = (self._slots, size)
            self._edits[size] = (
                np.zeros(wide, np.int64),
                np.ones(wide, np.float32),
                np.zeros(wide, np.float32),
            )
        return self._edits[size]

    def _fill_edits(self, rows: Seq[Sequence | None], size: int) -> None:
        token, scale, add = self._edit_arrays(size)
        for slot, work in enumerate(rows):
            if work is not None and work.edits is not None:
                work.edits.write(token[slot], scale[slot], add[slot])
            else:
                token[slot], scale[slot], add[slot] = 0, 1, 0

    def _mask_array(self) -> Array:
        if self._mask is None:
            self._mask = np.full((self._slots, self._words), -1, np.int32)
        return self._mask

    def _fill_mask(self, rows: Seq[Sequence | None]) -> None:
        mask = self._mask_array()
        for slot, work in enumerate(rows):
            mask[slot] = -1 if work is None or work.words is None else work.words


class Answers:
    """Where runs write: one set of arrays for each number of alternatives."""

    def __init__(self, rows: int, selected: int) -> None:
        self._rows, self._selected = rows, selected
        self.token = np.zeros((rows, selected), np.int64)
        self.logprob = np.zeros((rows, selected), np.float32)
        self._top: dict[int, tuple[Array, Array]] = {}

    def top(self, alternatives: int) -> tuple[Array, Array]:
        """Ids and log-probabilities of the most probable tokens, [rows, selected, alternatives]."""
        if alternatives not in self._top:
            wide = (self._rows, self._selected, alternatives)
            self._top[alternatives] = (np.zeros(wide, np.int64), np.zeros(wide, np.float32))
        return self._top[alternatives]

    def outputs(self, rows: int, alternatives: int) -> dict[str, Array]:
        """Arrays to bind, by the names of the graph's outputs."""
        ids, logprobs = self.top(alternatives)
        return {
            "token": self.token[:rows],
            "logprob": self.logprob[:rows],
            "top_token": ids[:rows],
            "top_logprob": logprobs[:rows],
        }

    def chosen(self, row: int, place: int, alternatives: int, wanted: int | None) -> Chosen:
        """What the graph says of one position."""
        return Chosen(
            int(self.token[row, place]),
            float(self.logprob[row, place]),
            self._best(row, place, alternatives, wanted) if wanted else (),
        )

    def each(self, alternatives: int, wanted: Seq[int | None]) -> list[Chosen]:
        """What the graph says of the first position of the first rows."""
        count = len(wanted)
        tokens, logprobs = self.token[:count, 0].tolist(), self.logprob[:count, 0].tolist()
        if not any(wanted):
            return list(map(Chosen, tokens, logprobs))
        tops = (self._best(row, 0, alternatives, most) if most else () for row, most in enumerate(wanted))
        return list(map(Chosen, tokens, logprobs, tops))

    def _best(self, row: int, place: int, alternatives: int, wanted: int) -> tuple[tuple[int, float], ...]:
        ids, logprobs = (array[row, place, :wanted].tolist() for array in self.top(alternatives))
        return tuple(zip(ids, logprobs, strict=True))
