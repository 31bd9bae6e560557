"""The game tiles that the picture models learn from: read, captioned, split, varied, and drawn on sheets.

Knows no model. The data is Dungeon Crawl Stone Soup's (CC0): 5,552 unique tiles of 32x32 pixels with alpha. Colours are
premultiplied by alpha throughout, so that what is invisible has one colour and a picture changes smoothly into nothing.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from model_store.zoo.sources import DataSource
from model_store.zoo.tiles_captions import Caption, caption

SIDE: Final = 32
CHANNELS: Final = 4
DATA_FOLDER: Final = "crawl-tiles"
DATA_FILE: Final = "tiles32_rgba.npz"
SOURCE: Final = DataSource(
    data="Dungeon Crawl Stone Soup tiles, 32x32",
    licence="CC0-1.0",
    attribution="the artists of Dungeon Crawl Stone Soup, who gave up their rights",
    home="https://github.com/crawl/tiles",
)

HELD_SHARE: Final = 0.08
HELD_FAMILY: Final = 8
"""Tiles of the largest family that may be held out: the large ones teach what water and walls look like."""

ALIKE: Final = 0.04
"""Root mean square difference of two tiles, at a quarter of their side, up to which they are variants of one picture."""

VISIBLE: Final = 1 / 32
"""Alpha below which a pixel's own colour hardly matters."""

SHIFT: Final = 2
TEXTURES: Final = frozenset({"floor", "water"})


class DataError(ValueError):
    """The data folder does not hold the tiles."""


@dataclass(frozen=True)
class Tiles:
    """Tiles [count, 4, 32, 32] float32 in [0, 1], premultiplied, and the caption of each."""

    pixels: Tensor
    captions: tuple[Caption, ...]

    def __len__(self) -> int:
        return len(self.captions)

    def where(self, chosen: Iterable[int]) -> Self:
        """Keep the tiles at these places."""
        places = list(chosen)
        return type(self)(self.pixels[places], tuple(self.captions[place] for place in places))

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Every caption once, in order of appearance."""
        return tuple(dict.fromkeys(str(each) for each in self.captions))

    @cached_property
    def _room(self) -> Tensor:
        """How far each tile can move up, down, left and right [count, 4] until a visible pixel leaves."""
        seen = self.pixels[:, 3] > 0
        rows, columns = seen.any(2).int(), seen.any(1).int()
        sides = (rows, rows.flip(1), columns, columns.flip(1))
        return torch.stack([(each.cummax(1).values == 0).sum(1) for each in sides], dim=1).clamp_max(SHIFT)

    @cached_property
    def _opaque(self) -> Tensor:
        return (self.pixels[:, 3] == 1).all(2).all(1)

    def varied(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The chosen tiles [batch, 4, 32, 32], each changed in a way that leaves its caption true.

        Whatever has no side is mirrored half of the time; what stands in the open moves up to two pixels; floors and waters,
        which go on beyond the tile, begin anywhere and are seen from any side.
        """
        draws = torch.rand(len(chosen), 4, generator=generator)
        return torch.stack(
            [self._vary(place, draw) for place, draw in zip(chosen.tolist(), draws, strict=True)]
        )

    def _vary(self, place: int, draw: Tensor) -> Tensor:
        tile, words = self.pixels[place], self.captions[place]
        across, upside, down, right = draw.tolist()
        texture = words.mirrors and bool(self._opaque[place]) and bool(words.words & TEXTURES)
        flips = ([2] if words.mirrors and across < 0.5 else []) + ([1] if texture and upside < 0.5 else [])
        if texture:
            turned = tile.mT if upside < 0.25 or upside > 0.75 else tile
            return turned.flip(flips).roll((int(down * SIDE), int(right * SIDE)), (1, 2))
        above, below, before, behind = self._room[place].tolist()
        moves = (_between(-above, below, down), _between(-before, behind, right))
        return tile.roll(moves, (1, 2)).flip(flips)


def _between(low: int, high: int, draw: float) -> int:
    return min(high, low + int(draw * (high - low + 1)))


def read_tiles(data: Path) -> Tiles:
    """Read all tiles from `<data>/crawl-tiles/tiles32_rgba.npz`. Raises DataError where it holds something else."""
    path = data / DATA_FOLDER / DATA_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            images, paths = file["images"], file["paths"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); the tiles' home is {SOURCE.home}") from error
    if images.shape != (len(paths), SIDE, SIDE, CHANNELS) or images.dtype != np.uint8:
        raise DataError(f"{path} has images {images.dtype}{list(images.shape)} for {len(paths)} paths")
    straight = torch.from_numpy(images.astype(np.float32) / 255.0).permute(0, 3, 1, 2)
    pixels = torch.cat([straight[:, :3] * straight[:, 3:], straight[:, 3:]], dim=1).contiguous()
    return Tiles(pixels, tuple(caption(str(each)) for each in paths))


def read_split(data: Path) -> tuple[Tiles, Tiles]:
    """Tiles to learn from, and those that only figures are measured on. Raises DataError.

    A family is held out as a whole: all tiles of one theme or nearly the same pixels, mirrored or not. Every word of a held-out
    caption is in the captions of at least two other families: what is new is how they are put together.
    """
    tiles = read_tiles(data)
    held = _held_out(families(tiles), tiles)
    return (
        tiles.where(place for place in range(len(tiles)) if place not in held),
        tiles.where(sorted(held)),
    )


def families(tiles: Tiles) -> list[list[int]]:
    """Places of the tiles that are variants of one another, directly or by way of others."""
    parents = list(range(len(tiles)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    first: dict[frozenset[str], int] = {}
    for place, each in enumerate(tiles.captions):
        parents[root(place)] = root(first.setdefault(each.theme, place))
    for one, other in _alike(tiles.pixels):
        parents[root(one)] = root(other)
    found: dict[int, list[int]] = defaultdict(list)
    for place in range(len(tiles)):
        found[root(place)].append(place)
    return list(found.values())


def _alike(pixels: Tensor) -> list[tuple[int, int]]:
    small = nn.functional.avg_pool2d(pixels, 4)
    limit = ALIKE**2 * small[0].numel()
    pairs: list[tuple[int, int]] = []
    for other in (small, small.flip(3)):
        for begin in range(0, len(small), 1_000):
            near = torch.cdist(small[begin : begin + 1_000].flatten(1), other.flatten(1)).square() <= limit
            pairs += [(begin + row, column) for row, column in near.nonzero().tolist()]
    return pairs


def _held_out(found: Sequence[Sequence[int]], tiles: Tiles) -> set[int]:
    words = [frozenset().union(*(tiles.captions[place].words for place in family)) for family in found]
    known = Counter(word for each in words for word in each)
    held: set[int] = set()
    for number in sorted(range(len(found)), key=lambda number: _lot(tiles.captions[found[number][0]])):
        family = found[number]
        fits = len(family) <= HELD_FAMILY and len(held) < HELD_SHARE * len(tiles)
        if fits and all(known[word] >= 3 for word in words[number]):
            held.update(family)
            known.subtract(words[number])
    return held


def _lot(first: Caption) -> bytes:
    """An order that has nothing to do with what is shown, and that more data would leave as it is."""
    return hashlib.sha256(str(first).encode()).digest()


def straight(premultiplied: Tensor) -> Tensor:
    """Colours of premultiplied RGBA [batch, 4, H, W] in [0, 1] on their own; black where nothing is seen.

    What is hardly seen is darker than it was, by less than an eye sees: its colour would be rounding errors, enlarged.
    """
    alpha = premultiplied[:, 3:]
    return torch.cat([(premultiplied[:, :3] / alpha.clamp_min(VISIBLE)).clamp(0.0, 1.0), alpha], dim=1)


def on_grey(premultiplied: Tensor, grey: float = 0.5) -> Tensor:
    """Colours [batch, 3, H, W] of premultiplied RGBA before a grey ground: what an eye compares."""
    return premultiplied[:, :3] + grey * (1.0 - premultiplied[:, 3:])


def sheet(rows: Sequence[tuple[str, Tensor]], scale: int = 2, text: int = 250) -> Image.Image:
    """A contact sheet: a line of text and its premultiplied tiles [count, 4, 32, 32] in each row, before dark grey."""
    side, gap = SIDE * scale, 4
    widest = max(len(tiles) for _, tiles in rows)
    drawn = Image.new("RGB", (text + widest * (side + gap), len(rows) * (side + gap)), (58, 58, 66))
    pen = ImageDraw.Draw(drawn)
    for line, (words, tiles) in enumerate(rows):
        top = line * (side + gap)
        pen.text((6, top + side // 2 - 6), words, fill=(235, 235, 235))
        colours = (on_grey(tiles.clamp(0, 1), 0.26).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        for place, tile in enumerate(colours.numpy()):
            picture = Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST)
            drawn.paste(picture, (text + place * (side + gap), top))
    return drawn
