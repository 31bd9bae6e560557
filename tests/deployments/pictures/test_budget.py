import io
import math
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from deployments.pictures import encode
from deployments.pictures.budget import best_within, compared

NOISE = np.random.default_rng(0).random((1, 48, 48), np.float32)
KINDS: list[Literal["jpeg", "webp"]] = ["jpeg", "webp"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_best_that_fits(kind: Literal["jpeg", "webp"], channels: int) -> None:
    pixels = NOISE.repeat(channels, 0)
    sizes = [len(best_within(pixels, kind, size)) for size in (800, 1500, 10**6)]
    assert sizes[0] <= 800
    assert sizes[1] <= 1500
    assert sizes[0] < sizes[1] < sizes[2]
    with Image.open(io.BytesIO(best_within(pixels, kind, 1500))) as picture:
        assert (picture.format, picture.size) == (kind.upper(), (48, 48))


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_where_none_fits(kind: Literal["jpeg", "webp"]) -> None:
    smallest = best_within(NOISE, kind, 1)
    assert len(smallest) > 1
    assert len(best_within(NOISE, kind, len(smallest))) == len(smallest)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (4, 6, 3)])
def test_pictures_are_compared_in_their_own_places(count: int, shape: tuple[int, ...]) -> None:
    pictures = list(np.random.default_rng(0).random((count, *shape), np.float32))
    made = [encode(picture) for picture in pictures]
    compression, ratios = compared(pictures, made, b"x" * 10**6)
    assert (compression.psnr, ratios) == (None, [None] * count)
    assert compression.bits_per_pixel == pytest.approx(8e6 / (count * shape[1] * shape[2]))
    for kind in (compression.jpeg, compression.webp):
        if kind is None:
            assert shape[0] == 4
            continue
        assert kind.fits
        # Noise in the wrong places would be 8 dB.
        assert (kind.psnr or math.inf) > 12


def test_how_far_pictures_are() -> None:
    flat = [np.full((1, 8, 8), level, np.float32) for level in (0.0, 1.0)]
    made = [encode(np.full((1, 8, 8), level, np.float32)) for level in (0.2, 1.0)]
    compression, (first, second) = compared(flat, made, b"xx")
    assert first == pytest.approx(-20 * math.log10(0.2))
    assert second is None
    assert compression.psnr == pytest.approx(-10 * math.log10(0.04 / 2))
    assert compression.jpeg is not None
    assert not compression.jpeg.fits
    assert not compression.webp.fits
    assert compression.webp.bytes > 2
