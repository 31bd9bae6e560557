"""Which of the pictures that are being made take part in a step. Knows numbers only: no row and no graph.

Where a run of many rows takes many times as long as one of few, a picture of few steps among some of many waits for them at each
of its steps, and they lose next to nothing when it goes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Who is at most so many times as long as the shortest goes with it; the others only stand back while all of them have this
# many times as far to go.
_ALIKE: Final = 2
_FARTHER: Final = 4
# A step of those who go first takes at most this part of a step of all, or it is not worth the batch.
_WORTH: Final = 0.5
# What each run leaves of the weight of those before it.
_MEMORY: Final = 0.98


@dataclass(frozen=True, slots=True)
class Turn:
    """One picture: all its evaluations, those that it still needs, pixels of each, and how often it may still stand back."""

    whole: int
    left: int
    pixels: int
    patience: int


class Turns:
    """One model's."""

    def __init__(self) -> None:
        # Sums over runs of 1, pixels, their square, seconds, pixels times seconds: a line through what runs have taken.
        self._sums = [0.0] * 5

    def measure(self, pixels: int, seconds: float) -> None:
        """A run of so many pixels took so long."""
        seen = (1.0, float(pixels), float(pixels) ** 2, seconds, pixels * seconds)
        self._sums = [before * _MEMORY + now for before, now in zip(self._sums, seen, strict=True)]

    def choose(self, turns: Sequence[Turn]) -> list[int]:
        """Places of those who take part: all of them, or those who are short."""
        everyone = list(range(len(turns)))
        if len(turns) < 2:
            return everyone
        length = _ALIKE * min(turn.whole for turn in turns)
        first = [place for place in everyone if turns[place].whole <= length]
        others = [turn for turn in turns if turn.whole > length]
        farthest = max(turns[place].left for place in first)
        if any(turn.patience <= 0 or turn.left < _FARTHER * farthest for turn in others):
            return everyone
        alone, together = sum(turns[place].pixels for place in first), sum(turn.pixels for turn in turns)
        return first if self._part(alone, together) <= _WORTH else everyone

    def _part(self, alone: int, together: int) -> float:
        """Of what a run of so many pixels takes, what one of fewer does; that of the pixels where nothing is known."""
        count, pixels, squares, seconds, products = self._sums
        spread = count * squares - pixels**2
        if spread <= 1e-6 * count * squares:  # runs of one size tell nothing of another
            return alone / together
        slope = max((count * products - pixels * seconds) / spread, 0.0)
        start = max((seconds - slope * pixels) / count, 0.0)
        whole = start + slope * together
        return (start + slope * alone) / whole if whole else 1.0
