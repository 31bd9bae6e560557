from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.zoo import tiles
from model_store.zoo.tiles import DATA_FILE, DATA_FOLDER, DataError, Tiles
from model_store.zoo.tiles_captions import Caption
from tests.model_store.zoo.tiny_tiles import write_tiny_tiles


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tiles(tmp_path_factory.mktemp("data"))


def one(tile: torch.Tensor, subject: str = "rat", kind: str = "monster") -> Tiles:
    return Tiles(tile[None], (Caption((subject,), (kind,)),))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_colours_are_premultiplied(tmp_path: Path) -> None:
    image = np.full((1, 32, 32, 4), 200, np.uint8)
    image[0, :16, :, 3] = 0
    (tmp_path / DATA_FOLDER).mkdir()
    np.savez(tmp_path / DATA_FOLDER / DATA_FILE, images=image, paths=np.array(["mon/rat.png"]))
    pixels = tiles.read_tiles(tmp_path).pixels
    assert pixels.shape == (1, 4, 32, 32)
    assert not pixels[0, :, :16].any()
    assert torch.allclose(pixels[0, :3, 16:], torch.tensor((200 / 255) ** 2))


def test_missing_data_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="home"):
        tiles.read_tiles(tmp_path)


def test_data_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATA_FOLDER).mkdir()
    np.savez(
        tmp_path / DATA_FOLDER / DATA_FILE, images=np.zeros((2, 8, 8, 4), np.uint8), paths=np.array(["a"])
    )
    with pytest.raises(DataError, match="1 paths"):
        tiles.read_tiles(tmp_path)


def test_held_out_captions_are_new_but_their_words_are_not(data: Path) -> None:
    known, held = tiles.read_split(data)
    assert len(known) + len(held) == 60
    assert len(held)
    assert not {each.theme for each in known.captions} & {each.theme for each in held.captions}
    words = frozenset().union(*(each.words for each in known.captions))
    assert all(each.words <= words for each in held.captions)


def test_the_split_is_always_the_same(data: Path) -> None:
    assert tiles.read_split(data)[1].captions == tiles.read_split(data)[1].captions


def test_nearly_the_same_pixels_are_one_family_mirrored_or_not() -> None:
    pixels = torch.rand(3, 4, 32, 32, generator=generator())
    pixels[1] = (pixels[0].flip(2) + 0.001).clamp(0, 1)
    names = tuple(Caption((name,), ("monster",)) for name in ("ant", "bee", "cat"))
    assert sorted(map(sorted, tiles.families(Tiles(pixels, names)))) == [[0, 1], [2]]


def test_tiles_of_one_theme_are_one_family() -> None:
    names = (
        Caption(("wave", "north"), ("water",)),
        Caption(("rat",), ()),
        Caption(("wave", "south"), ("water",)),
    )
    found = tiles.families(Tiles(torch.rand(3, 4, 32, 32, generator=generator()), names))
    assert sorted(map(sorted, found)) == [[0, 2], [1]]


def test_what_stands_in_the_open_loses_no_pixel() -> None:
    tile = torch.zeros(4, 32, 32)
    tile[:, 1:20, 0:9] = torch.rand(4, 19, 9, generator=generator()) + 0.1
    shown = one(tile).varied(torch.zeros(40, dtype=torch.int64), generator())
    assert torch.allclose(shown.sum((1, 2, 3)), tile.sum())
    assert len({each.numpy().tobytes() for each in shown}) > 5


def test_what_names_a_side_keeps_it() -> None:
    tile = torch.zeros(4, 32, 32)
    tile[:, 8:24, 0:4] = 1.0
    shown = one(tile, "left").varied(torch.zeros(30, dtype=torch.int64), generator())
    assert (shown[:, 3, :, :16].sum((1, 2)) == 64).all()


def test_a_floor_begins_anywhere() -> None:
    tile = torch.rand(4, 32, 32, generator=generator())
    tile[3] = 1.0
    shown = one(tile, kind="floor").varied(torch.zeros(20, dtype=torch.int64), generator())
    assert torch.allclose(shown.flatten(1).sort().values, tile.flatten().sort().values)
    assert len({each.numpy().tobytes() for each in shown}) == 20


def test_variations_depend_on_the_generator_alone(data: Path) -> None:
    known, _ = tiles.read_split(data)
    chosen = torch.arange(8)
    assert torch.equal(known.varied(chosen, generator()), known.varied(chosen, generator()))


def test_straight_colours_undo_premultiplication() -> None:
    image = torch.rand(2, 4, 5, 5, generator=generator()).clamp_min(0.1)
    image[:, 3, :2] = 0.0
    premultiplied = torch.cat([image[:, :3] * image[:, 3:], image[:, 3:]], dim=1)
    found = tiles.straight(premultiplied)
    assert torch.allclose(found[:, :, 2:], image[:, :, 2:], atol=1e-6)
    assert not found[:, :, :2].any()


def test_colours_of_what_is_hardly_seen_are_never_far_off() -> None:
    faint = torch.full((1, 4, 2, 2), 0.01)
    found = tiles.straight(faint)
    assert (found[:, :3] < 0.5).all()
    assert ((found[:, :3] * found[:, 3:] - faint[:, :3]).abs() < 2 / 255).all()


def test_a_sheet_has_a_row_for_each_line() -> None:
    drawn = tiles.sheet(
        [("one", torch.rand(3, 4, 32, 32)), ("two", torch.rand(2, 4, 32, 32))], scale=1, text=50
    )
    assert drawn.size == (50 + 3 * 36, 2 * 36)


def test_a_sheet_shows_the_pixels() -> None:
    tile = torch.zeros(1, 4, 32, 32)
    tile[0, 0], tile[0, 3] = 1.0, 1.0
    assert tiles.sheet([("", tile)], scale=1, text=50).getpixel((60, 10)) == (255, 0, 0)


def test_provenance_counts_the_weights() -> None:
    found = tiles.SOURCE.provenance(torch.nn.Linear(2, 3), "tiles_flow", seed=1, steps=2)
    assert (found.parameters, found.data_licence, found.recipe) == (9, "CC0-1.0", "tiles_flow")
