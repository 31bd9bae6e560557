from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest
from deployments.latent_space import LatentSpace, Spread, latent_size, space_of
from model_store.manifest import Manifest
from model_store.store import Store

WIDE = LatentSpace(3, b"", Spread(np.array([0.0, 10.0, -1.0]), np.array([1.0, 2.0, 0.5])), None)


def manifest(tiny: Path, name: str) -> Manifest:
    return Store(str(tiny)).manifest(name)


@pytest.mark.parametrize(
    ("name", "size"), [("tiny-ae", 64), ("tiny-colour", 192), ("tiny-gan", 0), ("tiny-score", 0)]
)
def test_how_many_axes(tiny: Path, name: str, size: int) -> None:
    assert latent_size(manifest(tiny, name)) == size


def test_a_model_that_decodes_nothing_has_no_space(tiny: Path) -> None:
    assert space_of(manifest(tiny, "tiny-gan"), 0, 1 << 20) is None


def test_latents_that_pictures_are_drawn_from_are_standard_normal(tiny: Path) -> None:
    space = space_of(manifest(tiny, "tiny-vae"), 64, 1 << 20)
    assert space is not None
    assert space.spread is not None
    assert space.ranges is not None
    assert set(space.spread.mean) == {0.0}
    assert set(space.spread.deviation) == {1.0}
    assert space.ranges.values(np.full((1, 64), 255, np.uint8)).max() == pytest.approx(4)


def test_an_autoencoders_are_of_no_known_spread(tiny: Path) -> None:
    space = space_of(manifest(tiny, "tiny-ae"), 64, 1 << 20)
    assert space is not None
    assert (space.spread, space.ranges) == (None, None)
    assert space.items is not None
    assert space.items.shape == (1, 8, 8)


def test_versions_have_keys_of_their_own(tiny: Path) -> None:
    spaces = [space_of(manifest(tiny, name), 64, 1) for name in ("tiny-ae", "tiny-vae")]
    assert len({space.key for space in spaces if space}) == 2


@pytest.mark.parametrize(
    ("axis", "low", "high", "unit", "places"),
    [
        (1, -1, 1, "value", [-1, 0, 1]),
        (1, -1, 1, "deviation", [8, 10, 12]),
        (2, 2, -2, "deviation", [0, -1, -2]),
        (0, 0.5, 0.5, "value", [0.5, 0.5, 0.5]),
    ],
)
def test_places_on_an_axis(axis: int, low: float, high: float, unit: Any, places: list[float]) -> None:
    assert WIDE.places(axis, low, high, 3, unit) == places


@pytest.mark.parametrize(
    ("axis", "low", "high", "unit", "param"),
    [
        (3, 0, 1, "value", "axis"),
        (1, 0, 1e39, "value", "range"),
        (1, -1.7e308, 1.7e308, "value", "range"),
        (1, 0, 1e308, "deviation", "range"),
        (1, 0, 3e38, "deviation", "range"),
    ],
)
def test_places_that_are_none(axis: int, low: float, high: float, unit: Any, param: str) -> None:
    with pytest.raises(BadRequest) as error:
        WIDE.places(axis, low, high, 3, unit)
    assert error.value.param == param


def test_no_deviations_where_none_are_known(tiny: Path) -> None:
    with pytest.raises(BadRequest) as error:
        LatentSpace(3, b"", None, None).places(0, -1, 1, 3, "deviation")
    assert (error.value.param, error.value.code) == ("unit", "unknown_spread")


def test_latents_are_named_by_their_place() -> None:
    assert [each.tolist() for each in WIDE.vectors([([1, 2, 3], "a"), (b"\0" * 12, "b")])] == [
        [1, 2, 3],
        [0, 0, 0],
    ]
    with pytest.raises(BadRequest) as error:
        WIDE.vectors([([1, 2, 3], "a"), ([1], "b[2]")])
    assert error.value.param == "b[2]"
