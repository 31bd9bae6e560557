"""Stop strings, matched on text across token boundaries. Knows no tokens."""

from collections.abc import Sequence


class StopMatcher:
    """Passes text through until a stop string is complete, never letting out a part of one.

    Of several, the one that is complete first counts, so that it does not matter how the text was cut into pieces.
    Text that might be the beginning of a stop string is held back until the next text decides.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._beginnings = frozenset(stop[:size] for stop in stops for size in range(1, len(stop)))
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that is safe to send and whether a stop string was found (it and what follows is dropped)."""
        if not self._stops:
            return text, False
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        keep = self._partial(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back, once it is certain that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _partial(self, text: str) -> int:
        """Length of the longest ending of `text` that begins a stop string."""
        for size in range(min(len(text), self._longest), 0, -1):
            if text[-size:] in self._beginnings:
                return size
        return 0
