"""How much of a prompt is computed between two decode steps. Knows times only."""

from typing import Final

_SMALLEST: Final = 8
# Several prompts that arrive together come first where the rows that wait for them are this part of those that run:
# dripped in beside the others they would leave the batch half empty for long.
_CROWD: Final = 4
# Weight of the newest measurement.
_NEWEST: Final = 0.3


class Chunks:
    """Tokens of a chunk: what takes about as long as a decode step; `most` where no stream runs, or many rows wait.

    So a long prompt makes the streams beside it half as fast while it is read, and no gap is longer than two steps.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._decode_seconds = 0.0
        self._token_seconds = 0.0

    def size(self, *, pending: int, decoding: int) -> int:
        """Tokens for the next step, while so many rows wait for their prompt and so many for their next token."""
        if not decoding or (pending > 1 and _CROWD * pending >= decoding):
            return self._most
        if not self._decode_seconds or not self._token_seconds:
            return min(_SMALLEST * 4, self._most)
        fitting = int(self._decode_seconds / self._token_seconds)
        return min(max(fitting // _SMALLEST * _SMALLEST, _SMALLEST), self._most)

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        self._decode_seconds = _average(self._decode_seconds, seconds)

    def prefilled(self, tokens: int, seconds: float) -> None:
        """A chunk of so many tokens took so long."""
        self._token_seconds = _average(self._token_seconds, seconds / tokens)


def _average(before: float, newest: float) -> float:
    return newest if not before else before + _NEWEST * (newest - before)
