"""Samples beside the figures: pictures and texts for the page, which the record does not keep."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.record import Figure, Plot
from deployments.pictures import encode

Progress: TypeAlias = Callable[[str, int, int], None]  # what is being done, how much of it is, of how much


@dataclass(frozen=True)
class Tile:
    """One PNG and the words below it."""

    png: bytes
    caption: str = ""


@dataclass(frozen=True)
class Grid:
    """Pictures that belong together."""

    title: str
    about: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Passage:
    """One prompt, what was answered, and what was wanted."""

    prompt: str
    answer: str
    wanted: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table: names of its columns, and rows of as many texts, the first of which says what the row is of."""

    title: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass
class Found:
    """What one part of an evaluation has measured."""

    figures: dict[str, Figure] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Found") -> None:
        """Put another part behind this one."""
        self.figures |= other.figures
        self.plots += other.plots
        self.grids += other.grids
        self.passages += other.passages
        self.sheets += other.sheets
        self.settings |= other.settings


def tile(caption: str, *pictures: NDArray[np.floating]) -> Tile:
    """Pictures [channels, height, width] in [0, 1] side by side."""
    channels = max(len(each) for each in pictures)
    wide = [np.repeat(each, channels, 0) if len(each) == 1 else each for each in pictures]
    wide = [np.concatenate([each, np.ones_like(each[:1])]) if len(each) < channels else each for each in wide]
    return Tile(encode(np.concatenate(wide, axis=2).clip(0, 1).astype(np.float32)), caption)
