import io
import random
import struct
import time
import tracemalloc
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from deployments.errors import BadRequest
from deployments.pictures import MAX_SIDE, decode, encode, heat

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def file(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """2x2: red, green / blue, white."""
    picture = Image.new("RGB", (2, 2), (255, 255, 255))
    for place, colour in (((0, 0), RED), ((1, 0), GREEN), ((0, 1), BLUE)):
        picture.putpixel(place, colour)
    return picture


def colours(pixels: np.ndarray[Any, Any]) -> list[list[tuple[int, ...]]]:
    """Pixels in [0, 1], channels first, as rows of 8-bit colours."""
    return [[tuple(map(int, pixel)) for pixel in row] for row in np.rint(pixels * 255).transpose(1, 2, 0)]


def refused(data: bytes, channels: int = 3) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        decode(data, channels, 8, 8, "input[0].image")
    assert error.value.param == "input[0].image"
    return error.value


# -- reading -----------------------------------------------------------------------------------------------------------


def test_channels_come_first_in_zero_to_one() -> None:
    pixels = decode(file(corners()), 3, 2, 2, "p")
    assert pixels.dtype == np.float32
    assert colours(pixels) == [[RED, GREEN], [BLUE, (255, 255, 255)]]
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_any_mode_becomes_the_models_channels(mode: str, channels: int) -> None:
    pixels = decode(file(Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode)), channels, 5, 4, "p")
    assert pixels.shape == (channels, 4, 5)
    assert (pixels == 1).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_read(kind: str) -> None:
    pixels = decode(file(Image.new("RGB", (8, 8), (200, 100, 50)), kind), 3, 8, 8, "p")
    assert np.abs(pixels[:, 0, 0] * 255 - (200, 100, 50)).max() < 4


def test_cmyk_is_read() -> None:
    pixels = decode(file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), 3, 8, 8, "p")
    assert np.abs(pixels[:, 0, 0] - (1, 0, 0)).max() < 0.05


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 128, 65535]], np.uint16))
    assert deep.mode == "I;16"
    assert np.rint(decode(file(deep), 1, 3, 1, "p") * 255).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_shows_black(channels: int) -> None:
    picture = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    picture.putpixel((0, 0), (255, 255, 255, 0))
    assert decode(file(picture), channels, 2, 1, "p")[:, 0].T.tolist() == [[0] * channels, [1] * channels]


def test_a_transparent_colour_of_a_palette_shows_black() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 255, 255, 255, 0, 0])
    picture.putpixel((1, 0), 1)
    assert colours(decode(file(picture, transparency=0), 3, 2, 1, "p")) == [[(0, 0, 0), RED]]


def test_alpha_is_kept_where_the_model_takes_it() -> None:
    picture = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert colours(decode(file(picture), 4, 1, 1, "p")) == [[(255, 0, 0, 0)]]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[RED, GREEN], [BLUE, (255, 255, 255)]]),
        (3, [[(255, 255, 255), BLUE], [GREEN, RED]]),
        (6, [[BLUE, RED], [(255, 255, 255), GREEN]]),
        (8, [[GREEN, (255, 255, 255)], [RED, BLUE]]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_cameras_orientation_is_applied(
    kind: str, orientation: int, upright: list[list[tuple[int, ...]]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(corners(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert colours(decode(data, 3, 2, 2, "p")) == upright


def test_another_size_is_resampled() -> None:
    pixels = decode(file(Image.new("RGB", (64, 32), (255, 0, 0))), 3, 8, 8, "p")
    assert colours(pixels) == [[RED] * 8] * 8


def test_the_first_picture_of_a_phones_jpeg_is_the_one_meant() -> None:
    several = file(
        Image.new("RGB", (8, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)]
    )
    pixels = decode(several, 3, 8, 8, "p")
    assert pixels[0, 0, 0] > 0.9
    assert pixels[2, 0, 0] < 0.1


# -- refusing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    assert refused(file(corners(), kind)).code == "invalid_image"


@pytest.mark.parametrize(
    "data",
    [b"", b"text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert refused(data).code == "invalid_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    data = file(noise, kind)
    assert refused(data[: len(data) // 2]).code == "invalid_image"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    data = file(corners(), kind, save_all=True, append_images=[Image.new("RGB", (2, 2))])
    assert "Animated" in refused(data).message


def bomb(width: int, height: int) -> bytes:
    """A PNG of some 70 bytes that claims any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height"), [(30_000, 30_000), (10_000, 10_000), (8000, 8000), (MAX_SIDE + 1, 1), (1, 2**31 - 1)]
)
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    data = bomb(width, height)
    tracemalloc.start()
    began = time.perf_counter()
    assert refused(data).code == "image_too_large"
    assert time.perf_counter() - began < 0.2
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of what it skips in damaged metadata
@pytest.mark.parametrize("seed", range(3))
def test_damaged_pictures_are_read_or_refused(seed: int) -> None:
    """Nothing but BadRequest comes out, whatever bytes go in."""
    chance = random.Random(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8))
    whole = [
        file(picture, kind, exif=exif, **options)
        for kind, options in (("PNG", {}), ("JPEG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}))
    ]
    for _ in range(150):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert decode(bytes(data), 3, 8, 8, "p").shape == (3, 8, 8)
        except BadRequest as error:
            assert error.code in ("invalid_image", "image_too_large")  # noqa: PT017 - either is right


# -- writing -----------------------------------------------------------------------------------------------------------

pixel_values = st.integers(0, 255).map(lambda value: np.float32(value / 255))


@settings(max_examples=30)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 9), st.integers(1, 9)),
        elements=pixel_values,
    )
)
def test_a_png_gives_back_what_it_was_made_of(pixels: np.ndarray[Any, Any]) -> None:
    channels, height, width = pixels.shape
    assert np.abs(decode(encode(pixels), channels, width, height, "p") - pixels).max() < 1e-6


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_format_is_written(kind: Literal["png", "jpeg", "webp"], channels: int) -> None:
    pixels = np.full((channels, 16, 16), 0.5, np.float32)
    data = encode(pixels, kind)
    assert Image.open(io.BytesIO(data)).format == kind.upper()
    again = decode(data, 3, 16, 16, "p")
    expected = 0.25 if channels == 4 and kind != "jpeg" else 0.5  # half transparent over black
    assert np.abs(again - expected).max() < 0.02


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_quality_is_honoured(kind: Literal["jpeg", "webp"]) -> None:
    pixels = np.random.default_rng(0).random((3, 32, 32), np.float32)
    sizes = [len(encode(pixels, kind, quality)) for quality in (0, 50, 100)]
    assert sizes == sorted(set(sizes))


def test_values_outside_the_range_are_clipped() -> None:
    pixels = np.array([[[-1.0, 0.0, 1.0, 9.0]]], np.float32)
    assert decode(encode(pixels), 1, 4, 1, "p").tolist() == [[[0, 0, 1, 1]]]


def test_heat_runs_from_dark_to_light() -> None:
    coloured = heat(np.linspace(-0.5, 1.5, 50, dtype=np.float32)[None])
    assert coloured.shape == (3, 1, 50)
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    brightness = (coloured * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(axis=0)[0]
    assert (np.diff(brightness) >= -1e-6).all()
    assert brightness[-1] - brightness[0] > 0.8
