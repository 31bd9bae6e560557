"""The device state of all slots: caches and recurrent states, bound in place, moved and copied. Knows no row.

Slot i of every buffer belongs to live row i; the slots behind the live ones hold prefixes that may be used again.
"""

from collections.abc import Sequence
from typing import Final

from deployments.text.prefixes import Prefixes
from model_store.manifest import State, Text
from model_store.session import Device, Place
from model_store.state import StateBuffer

CACHE: Final = "cache"


class _Memory:
    """One state tensor of all slots. What cannot be written in place is written beside and copied back."""

    def __init__(self, state: State, slots: int, context: int, device: Device) -> None:
        self.state = state
        # A row's tokens lie along this axis; None: its state is of one piece.
        self.axis = state.shape.index(CACHE) if CACHE in state.shape else None
        shape = tuple(context if size == CACHE else int(size) for size in state.shape)
        # A CPU's buffers take memory where they have been written, so long rows alone pay for the context.
        self.past = StateBuffer(slots, shape, state.dtype, device)
        self.present = self.past if state.in_place else StateBuffer(slots, shape, state.dtype, device)


class Slots:
    """State of `live` rows at once and of as many kept prefixes."""

    def __init__(self, text: Text, *, live: int, kept: int, context: int, device: Device) -> None:
        source = text.source.state if text.source else ()
        # Only what lies along tokens can be cut to a prefix.
        self.divisible = not source and all(CACHE in state.shape for state in text.state)
        self._kept = kept if self.divisible else 0
        count = live + self._kept
        self.prefixes = Prefixes(count)
        self._states = [_Memory(state, count, context, device) for state in text.state]
        self._sources = [_Memory(state, count, context, device) for state in source]
        self._copied = [each for each in self._states if each.present is not each.past]

    @property
    def keeps(self) -> bool:
        """Whether prefixes are kept at all."""
        return self._kept > 0

    def bound(self, first: int, count: int) -> tuple[dict[str, Place], dict[str, Place]]:
        """The step's state inputs and outputs for some slots, by name."""
        read = {each.state.past: each.past.place(first, count) for each in (*self._states, *self._sources)}
        written = {each.state.present: each.present.place(first, count) for each in self._states}
        return read, written

    def encoded(self, first: int, count: int) -> dict[str, Place]:
        """Where the graph `encode` writes for some slots, by output name."""
        return {each.state.present: each.past.place(first, count) for each in self._sources}

    def begin(self, slot: int) -> None:
        """A new row takes a slot. Old state needs no clearing where lengths say what counts."""
        for each in self._states:
            if each.axis is None:
                each.past.clear(slot)

    def keep(self, slots: Sequence[int], live: int) -> None:
        """Make what the step wrote for some of the first `live` slots the past of the next."""
        for each in self._copied:
            if len(slots) == live:
                each.past.copy_from(each.present, 0, live)
            else:
                for slot in slots:
                    each.past.copy_from(each.present, slot, 1)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the state of a slot's first tokens to another slot."""
        for each in (*self._states, *self._sources):
            each.past.move(source, target, axis=each.axis, upto=tokens)
