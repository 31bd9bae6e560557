"""How long what waits will take, from what was done lately. Knows numbers only: no row and no clock."""

import math
from typing import Final

# Time counts while there is work, and as much again counts a third (1/e).
_MEMORY_SECONDS: Final = 10.0
# What each finished row leaves of the weight of those before it.
_MEMORY_ROWS: Final = 0.95


class Pace:
    """Tokens a second as an exponential average, and what part of the tokens it may take a row takes in the end."""

    def __init__(self) -> None:
        self._since = 0.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._spent = 0.0
        self._asked = 0.0

    def begin(self, now: float) -> None:
        """There is work again: the time before does not count."""
        self._since = now

    def measure(self, tokens: int, now: float) -> None:
        """So many tokens were computed since the last call."""
        seconds, self._since = max(now - self._since, 0.0), now
        kept = math.exp(-seconds / _MEMORY_SECONDS)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds

    def finish(self, spent: int, asked: int) -> None:
        """A row that might have taken `asked` tokens is done with `spent`."""
        self._spent = self._spent * _MEMORY_ROWS + spent
        self._asked = self._asked * _MEMORY_ROWS + asked

    def seconds(self, asked: float) -> float:
        """How long rows that may take so many tokens will take; 0 as long as nothing has finished to tell by."""
        if not self._tokens or not self._asked:
            return 0.0
        return asked * (self._spent / self._asked) * (self._seconds / self._tokens)
