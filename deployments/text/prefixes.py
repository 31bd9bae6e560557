"""Which slots hold the state of which tokens, so that a prompt that starts alike need not be computed again.

Pure accounting of the slots that no live row owns; knows no buffer and no model. State is shared only inside a scope (a
principal's, as a rule): how fast an answer comes would tell others what was asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_store.session import Array

SHORTEST: Final = 16
"""Tokens: a shorter prefix is computed faster than looked after."""


def as_array(tokens: Sequence[int]) -> Array:
    """Tokens in the form in which prefixes are compared."""
    return np.array(tokens, np.int64)


def common(first: Array, second: Array) -> int:
    """How many tokens two sequences have in common at their start."""
    size = min(len(first), len(second))
    differ = first[:size] != second[:size]
    return int(differ.argmax()) if differ.any() else size


@dataclass(slots=True)
class _Kept:
    tokens: Array
    scope: str
    used: int


class Prefixes:
    """What the `slots` beyond the live rows' hold. Least recently used goes first."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._kept: dict[int, _Kept] = {}
        self._clock = 0

    def __len__(self) -> int:
        """Prefixes that are kept."""
        return len(self._kept)

    def __contains__(self, slot: int) -> bool:
        """Whether a slot holds one."""
        return slot in self._kept

    def size(self, slot: int) -> int:
        """Tokens of the prefix that a slot holds, 0 if it holds none."""
        kept = self._kept.get(slot)
        return 0 if kept is None else len(kept.tokens)

    def find(self, tokens: Array, scope: str) -> tuple[int, int]:
        """The slot with the longest common start, and how long it is: (-1, 0) if none is worth it."""
        best, length = -1, SHORTEST - 1
        for slot, kept in self._kept.items():
            if kept.scope == scope and (found := common(kept.tokens, tokens)) > length:
                best, length = slot, found
        if best < 0:
            return -1, 0
        self._touch(best)
        return best, length

    def keep(self, slot: int, tokens: Array, scope: str) -> None:
        """Note what a slot holds now."""
        self._kept[slot] = _Kept(tokens, scope, 0)
        self._touch(slot)

    def forget(self, slot: int) -> None:
        """A slot is about to be written over."""
        self._kept.pop(slot, None)

    def move(self, source: int, target: int) -> int:
        """A prefix is copied to another slot: how many tokens it has."""
        kept = self._kept[target] = self._kept.pop(source)
        return len(kept.tokens)

    def room(self, first: int, *, but: int = -1) -> int | None:
        """A slot from `first` on (not `but`) for a prefix to be kept: a free one, or the least recently used. None: no slot."""
        slots = [slot for slot in range(first, self._slots) if slot != but]
        return min(slots, key=self._age, default=None)

    def older(self, slot: int, other: int) -> bool:
        """Whether one slot's prefix was used before another's; no prefix is the oldest."""
        return self._age(slot) < self._age(other)

    def _age(self, slot: int) -> int:
        kept = self._kept.get(slot)
        return 0 if kept is None else kept.used

    def _touch(self, slot: int) -> None:
        self._clock += 1
        self._kept[slot].used = self._clock
