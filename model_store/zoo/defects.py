"""Synthetic defects with their masks, drawn over good pictures: scratches, holes and blotches. Only figures are measured on them.

Knows no model and no data set. Everything is drawn four times as large and then made smaller, so that edges are soft; picture i
has the same defect whatever pictures stand beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats: TypeAlias = NDArray[np.float32]
Masks: TypeAlias = NDArray[np.bool_]
Chance: TypeAlias = np.random.Generator

SCALE: Final = 4
SEEN: Final = 0.1
"""Change of a pixel, as a share of full scale, from which it belongs to a defect."""

FEWEST: Final = 4
"""Pixels of a defect on what is shown, not on the black ground."""

TRIES: Final = 50


@dataclass(frozen=True)
class Defective:
    """Pictures [count, channels, side, side] in [0, 1], masks [count, side, side] true in the defect, and the kind of each."""

    pictures: Floats
    masks: Masks
    kinds: tuple[str, ...]


def spoil(pictures: Floats, seed: int) -> Defective:
    """Draw one defect over each picture [count, channels, side, side], on what is no black ground; the kinds take turns.

    A defect that cannot be seen is drawn anew. Raises ValueError where none can.
    """
    kinds = tuple(list(KINDS)[place % len(KINDS)] for place in range(len(pictures)))
    found = [
        _spoil(picture, kind, np.random.default_rng((seed, place)))
        for place, (picture, kind) in enumerate(zip(pictures, kinds, strict=True))
    ]
    return Defective(np.stack([each for each, _ in found]), np.stack([mask for _, mask in found]), kinds)


def _spoil(picture: Floats, kind: str, chance: Chance) -> tuple[Floats, Masks]:
    side, light = picture.shape[-1], picture.mean(0)
    places = np.argwhere(light > SEEN)
    for _ in range(TRIES if len(places) else 0):
        row, column = places[chance.integers(len(places))]
        cover = _drawn(KINDS[kind], (float(column), float(row)), side, chance)
        grey = _grey(kind, float((light * cover).sum() / max(cover.sum(), 1e-6)), chance)
        spoiled = (picture * (1 - cover) + grey * cover).astype(np.float32)
        mask = np.abs(spoiled - picture).max(0) > SEEN
        if (mask & (light > SEEN)).sum() >= FEWEST:
            return spoiled, mask
    raise ValueError("there is nothing on the picture that a defect could be seen on")


def _grey(kind: str, light: float, chance: Chance) -> float:
    """A hole shows the dark behind; anything else is lighter or darker than where it lies, wherever there is room."""
    if kind == "hole" and light > 0.3:
        return 0.0
    step = chance.uniform(0.35, 0.6)
    return (
        light + step
        if light + step <= 1 and (light < step or chance.random() < 0.5)
        else max(light - step, 0)
    )


def _drawn(
    draw: Callable[[ImageDraw.ImageDraw, tuple[float, float], Chance], float],
    centre: tuple[float, float],
    side: int,
    chance: Chance,
) -> Floats:
    """How far a defect covers each pixel [side, side], in [0, 1]."""
    canvas = Image.new("L", (side * SCALE, side * SCALE))
    x, y = ((each + 0.5) * SCALE for each in centre)
    blur = draw(ImageDraw.Draw(canvas), (x, y), chance)
    soft = canvas.filter(ImageFilter.GaussianBlur(blur * SCALE)) if blur else canvas
    cover: Floats = np.asarray(soft.resize((side, side), Image.Resampling.BOX), np.float32) / np.float32(255)
    return cover


def _scratch(pen: ImageDraw.ImageDraw, centre: tuple[float, float], chance: Chance) -> float:
    """A bent line, 8 to 18 pixels long and about one wide."""
    x, y = centre
    angle, half = chance.uniform(0, np.pi), chance.uniform(4, 9) * SCALE
    bend = angle + np.pi + chance.uniform(-0.5, 0.5)
    ends = [(x + half * np.cos(each), y + half * np.sin(each)) for each in (angle, bend)]
    pen.line(
        [ends[0], centre, ends[1]], fill=255, width=round(chance.uniform(1.0, 1.6) * SCALE), joint="curve"
    )
    return 0.0


def _hole(pen: ImageDraw.ImageDraw, centre: tuple[float, float], chance: Chance) -> float:
    """An ellipse of 3 to 7 pixels."""
    x, y = centre
    wide, high = chance.uniform(1.5, 3.5, 2) * SCALE
    pen.ellipse((x - wide, y - high, x + wide, y + high), fill=255)
    return 0.0


def _blotch(pen: ImageDraw.ImageDraw, centre: tuple[float, float], chance: Chance) -> float:
    """A blurred, uneven blot of 5 to 10 pixels."""
    x, y = centre
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    reach = chance.uniform(2.5, 5.0) * chance.uniform(0.6, 1.2, len(angles)) * SCALE
    corners = zip(x + reach * np.cos(angles), y + reach * np.sin(angles), strict=True)
    pen.polygon([(float(a), float(b)) for a, b in corners], fill=255)
    return 0.8


KINDS: Final[Mapping[str, Callable[[ImageDraw.ImageDraw, tuple[float, float], Chance], float]]] = {
    "scratch": _scratch,
    "hole": _hole,
    "blotch": _blotch,
}
