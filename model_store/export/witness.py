"""Who watches while a package is made. Knows what is told, not who listens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model_store.export.parity import Figure


@dataclass(frozen=True)
class Witness:
    """Called as things happen: `step` before each step, `stage` with what a step is at, `figure` with each comparison."""

    step: Callable[[str], None] = lambda _: None
    stage: Callable[[str], None] = lambda _: None
    figure: Callable[[Figure], None] = lambda _: None


NOBODY: Final = Witness()
