"""What one rendering of a template may still do: steps, characters, processor time. Knows no template."""

import time
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

from jinja2.exceptions import SecurityError

MAX_CHARACTERS: Final = 16_000_000  # written or made on the way
_MAX_STEPS: Final = 4_000_000
_STEPS_A_LOOK: Final = 256  # between two looks at the clock


def held_by(value: Any) -> Iterable[Any]:
    """What a container holds, the keys of a mapping too; nothing where it is none."""
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    return value if isinstance(value, (list, tuple, set, frozenset)) else ()


class TooMuch(SecurityError):
    """The template does more than one rendering may."""


class Meter:
    """What one rendering has left."""

    def __init__(self, seconds: float) -> None:
        self._steps = _MAX_STEPS
        self._characters = MAX_CHARACTERS
        self._look = _STEPS_A_LOOK
        self._end = time.thread_time() + seconds

    def spend(self, steps: int = 1) -> None:
        """Pay for a step. Raises TooMuch."""
        self._steps -= steps
        self._look -= steps
        if self._look <= 0:
            self._look = _STEPS_A_LOOK
            if self._steps < 0 or time.thread_time() > self._end:
                raise TooMuch("it takes too long")

    def make(self, characters: int) -> None:
        """Pay for text that is about to be made. Raises TooMuch."""
        self.spend(1 + characters // 1024)
        self._characters -= characters
        if self._characters < 0:
            raise TooMuch("it makes too much text")

    def weigh(self, *values: Any) -> None:
        """Pay for reading all of some values. Shared parts count each time they are read, as they do in a comparison."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            self.spend(2 + len(value) // 1024 if isinstance(value, str) else 1)
            waiting.extend(held_by(value))

    def write(self, value: Any) -> None:
        """Pay for a value written out as text."""
        waiting = [value]
        while waiting:
            value = waiting.pop()
            self.make(2 + len(value) if isinstance(value, str) else 2)
            waiting.extend(held_by(value))
