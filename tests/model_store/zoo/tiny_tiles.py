"""A folder like that of the tiles, small and made up: coloured shapes in named folders, so that words say what is seen."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.zoo.tiles import DATA_FILE, DATA_FOLDER

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 60, 230),
    "white": (240, 240, 240),
    "yellow": (230, 220, 40),
    "brown": (120, 70, 30),
}
KINDS: Mapping[str, tuple[int, int]] = {
    "mon/dragon": (20, 24),
    "item/ring": (6, 8),
    "dngn/floor/stone": (32, 32),
    "item/weapon/sword": (26, 5),
    "mon/animals/spider": (10, 18),
}


def write_tiny_tiles(data: Path) -> Path:
    """Write thirty tiles, each with a variant, below `data`; return `data`."""
    chance = np.random.default_rng(0)
    paths, images = [], []
    for (path, (high, wide)), (name, colour) in product(KINDS.items(), COLOURS.items()):
        folder, _, thing = path.rpartition("/")
        for number in ("", "2"):
            paths.append(f"Nov-2015/{folder}/{name}_{thing}{number}.png")
            images.append(draw(high, wide, colour, chance))
    (data / DATA_FOLDER).mkdir(parents=True)
    np.savez_compressed(data / DATA_FOLDER / DATA_FILE, images=np.stack(images), paths=np.array(paths))
    return data


def draw(
    high: int, wide: int, colour: tuple[int, int, int], chance: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A rectangle in the middle of nothing, its colour a little uneven, its lower half darker."""
    image = np.zeros((32, 32, 4), np.uint8)
    top, left = (32 - high) // 2, (32 - wide) // 2
    shade = np.linspace(1.0, 0.6, high)[:, None, None] * np.array(colour)
    body = shade + chance.integers(-12, 12, (high, wide, 3))
    image[top : top + high, left : left + wide, :3] = body.clip(0, 255)
    image[top : top + high, left : left + wide, 3] = 255
    return image
