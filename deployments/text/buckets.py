"""Sizes that decodes come in. Exact where a padded row costs as much as a live one; few where each is a captured graph."""

from typing import Final

SHORTEST: Final = 256
"""Tokens: attention over fewer takes no less time."""


class Buckets:
    """Powers of two up to the most there can be, or every size."""

    def __init__(self, capacity: int, context: int, *, exact: bool) -> None:
        self._capacity, self._context, self._exact = capacity, context, exact

    def rows(self, live: int) -> int:
        """Rows of a run in which so many are live."""
        return live if self._exact else min(_power(live), self._capacity)

    def length(self, longest: int) -> int:
        """What a run is told of its longest row, of so many tokens."""
        return longest if self._exact else min(max(_power(longest), SHORTEST), self._context)


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()
