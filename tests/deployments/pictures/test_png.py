import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from deployments.pictures.png import write_png

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def read(data: bytes) -> Bytes:
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def with_pillow(pixels: Bytes) -> int:
    """Bytes of Pillow's own file: a filter for each line, run lengths."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).save(
        file, "png", compress_type=zlib.Z_RLE
    )
    return len(file.getvalue())


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert data[place + 8 + length : place + 12 + length] == struct.pack(">I", zlib.crc32(kind + content))
        found.append((kind, content))
        place += 12 + length
    return found


def photograph(side: int, channels: int) -> Bytes:
    """Noise at every scale, the coarse the strongest."""
    chance = np.random.default_rng(0)
    whole = np.zeros((side, side, channels), np.float32)
    scale = 2
    while scale <= side:
        noise = Image.fromarray(chance.integers(0, 255, (scale, scale), np.uint8)).resize((side, side))
        whole += np.asarray(noise, np.float32)[..., None] / scale
        scale *= 2
    shown: Bytes = ((whole - whole.min()) / np.ptp(whole) * 255).astype(np.uint8)
    return shown


def drawing(side: int, channels: int) -> Bytes:
    """Areas of a single colour each."""
    chance = np.random.default_rng(0)
    whole = np.full((side, side, channels), 200, np.uint8)
    for _ in range(12):
        x, y = chance.integers(0, side, 2)
        whole[y : y + side // 3, x : x + side // 4] = chance.integers(0, 256, channels)
    return whole


def noise(side: int, channels: int) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8)


def half(side: int, channels: int) -> Bytes:
    """Runs of one colour beside a photograph: what a cut-out is."""
    whole = photograph(side, channels)
    whole[:, : side // 2] = 0
    return whole


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))),
)
def test_what_is_written_is_read(pixels: Bytes) -> None:
    assert (read(write_png(pixels, {})) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("make", [photograph, drawing, noise, half])
@pytest.mark.parametrize("side", [32, 300])
def test_by_every_way_of_compression(make: Any, side: int, channels: int) -> None:
    pixels = make(side, channels)
    assert (read(write_png(pixels, {})) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [16, 28, 64, 90])
def test_small_drawings_are_smaller_than_pillow_writes_them(side: int, channels: int) -> None:
    for pixels in (drawing(side, channels), np.full((side, side, channels), 7, np.uint8)):
        assert len(write_png(pixels, {})) <= with_pillow(pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("make", [photograph, drawing, noise, half])
def test_large_pictures_are_not_much_larger_than_pillow_writes_them(make: Any, channels: int) -> None:
    pixels = make(512, channels)
    assert len(write_png(pixels, {})) < 1.25 * with_pillow(pixels)


def test_a_large_picture_is_written_in_a_fraction_of_pillows_time() -> None:
    pixels = photograph(1024, 3)

    def seconds(write: Any) -> float:
        began = time.thread_time()
        write(pixels)
        return time.thread_time() - began

    assert min(seconds(lambda p: write_png(p, {})) for _ in range(3)) < 0.75 * seconds(with_pillow)


def test_notes_stand_before_the_picture_in_unicode() -> None:
    written = chunks(write_png(noise(4, 3), {"Software": "Atelier", "model": "\N{SNOWMAN}"}))
    assert [kind for kind, _ in written] == [b"IHDR", b"iTXt", b"iTXt", b"IDAT", b"IEND"]
    assert written[1][1] == b"Software\0\0\0\0\0Atelier"
    assert written[2][1] == b"model\0\0\0\0\0" + "\N{SNOWMAN}".encode()
