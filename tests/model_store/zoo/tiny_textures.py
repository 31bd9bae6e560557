"""A folder like that of the tiles with textures that have variants: uneven grounds of one colour each, and things that are none."""

from pathlib import Path

import numpy as np

from model_store.zoo.tiles import DATA_FILE, DATA_FOLDER

VARIANTS = 10
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 60, 230),
    "white": (240, 240, 240),
    "black": (8, 8, 8),
}


def write_tiny_textures(data: Path) -> Path:
    """Write a hundred textures below `data`, one fifth of them dark, with a door and a ring; return `data`."""
    chance = np.random.default_rng(0)
    paths = [
        f"Nov-2015/dngn/{kind}/{colour}_stone{number}.png"
        for kind in ("floor", "wall")
        for colour in COLOURS
        for number in range(VARIANTS)
    ]
    tiles = [
        np.clip(np.array(colour) + chance.integers(-8, 8, (32, 32, 3)), 0, 255)
        for _ in ("floor", "wall")
        for colour in COLOURS.values()
        for _ in range(VARIANTS)
    ]
    paths += ["Nov-2015/dngn/doors/closed_door.png", "Nov-2015/item/ring/brown_ring.png"]
    tiles += [np.full((32, 32, 3), 90), np.full((32, 32, 3), 60)]
    alpha = np.full((len(tiles), 32, 32, 1), 255)
    alpha[-1, :8] = 0
    images = np.concatenate([np.stack(tiles), alpha], axis=3).astype(np.uint8)
    (data / DATA_FOLDER).mkdir(parents=True)
    np.savez_compressed(data / DATA_FOLDER / DATA_FILE, images=images, paths=np.array(paths))
    return data
