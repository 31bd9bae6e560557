import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from deployments.errors import BadRequest
from deployments.pictures import MAX_SIDE, decode, fitted, read_mask, read_picture
from model_store.session import Array

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
    """The same by each way of reading."""
    with pytest.raises(BadRequest) as error:
        decode(data, channels, 8, 8, "input[0].image")
    reads: list[Callable[[], Array]] = [
        lambda: read_picture(data, channels, "mask"),
        lambda: read_mask(data, (8, 8), "mask"),
    ]
    for read in reads:
        with pytest.raises(BadRequest) as other:
            read()
        assert (other.value.code, other.value.message) == (error.value.code, error.value.message)
        assert other.value.param == "mask"
    assert error.value.param == "input[0].image"
    return error.value


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, lines: bytes, *chunks: bytes) -> bytes:
    """A PNG by hand; each line begins with its filter."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    rest = [chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, *rest])


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


def test_cmyk_as_adobe_writes_it_is_not_inverted() -> None:
    """Photoshop stores 255 - ink, and says so in a marker: white paper comes out white."""
    data = file(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in data
    assert decode(data, 3, 8, 8, "p").min() > 0.95


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 128, 65535]], np.uint16))
    assert deep.mode == "I;16"
    assert np.rint(decode(file(deep), 1, 3, 1, "p") * 255).tolist() == [[[0, 128, 255]]]


def test_sixteen_bits_of_colour_are_scaled() -> None:
    data = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 128 * 257, 0, 0, 0, 65535))
    assert colours(decode(data, 3, 2, 1, "p")) == [[(255, 128, 0), (0, 0, 255)]]


def test_sixteen_bits_with_alpha() -> None:
    data = png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 65535, 65535, 65535, 0))
    assert decode(data, 1, 2, 1, "p").tolist() == [[[1, 0]]]
    assert colours(decode(data, 4, 2, 1, "p")) == [[(255, 255, 255, 255), (255, 255, 255, 0)]]


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


STRIPES = [[RED, GREEN, GREEN, BLUE]]


def test_another_size_is_cut_off_or_filled_up_or_refused() -> None:
    stripes = Image.new("RGB", (16, 4))
    for place, colour in enumerate(STRIPES[0]):
        stripes.paste(colour, (4 * place, 0, 4 * place + 4, 4))
    assert colours(decode(file(stripes), 3, 4, 4, "p", resize="crop")) == [[GREEN] * 4] * 4
    padded = colours(decode(file(stripes), 3, 16, 8, "p", resize="pad"))
    assert padded[0] == padded[-1] == [(0, 0, 0)] * 16
    assert padded[3] == [each for each in STRIPES[0] for _ in range(4)]
    with pytest.raises(BadRequest, match="16x8, not 16x4") as error:
        decode(file(stripes), 3, 16, 8, "input[1].image", resize="refuse")
    assert (error.value.code, error.value.param) == ("invalid_size", "input[1].image")
    for mode in ("crop", "pad", "refuse"):
        assert decode(file(stripes), 3, 16, 4, "p", resize=mode).shape == (3, 4, 16)


def test_the_first_picture_of_a_phones_jpeg_is_the_one_meant() -> None:
    several = file(
        Image.new("RGB", (8, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)]
    )
    pixels = decode(several, 3, 8, 8, "p")
    assert pixels[0, 0, 0] > 0.9
    assert pixels[2, 0, 0] < 0.1


def test_the_pictures_own_size_is_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (5, 3), RED)
    assert read_picture(file(picture), 3, "p").shape == (3, 3, 5)
    assert read_picture(file(picture, exif=exif), 1, "p").shape == (1, 5, 3)
    assert colours(read_picture(file(corners()), 3, "p")) == [[RED, GREEN], [BLUE, (255, 255, 255)]]


def test_the_most_pixels_can_be_set() -> None:
    data = file(Image.new("L", (10, 10)))
    assert read_picture(data, 1, "p", most_pixels=100).shape == (1, 10, 10)
    reads: list[Callable[[], Array]] = [
        lambda: read_picture(data, 1, "p", most_pixels=99),
        lambda: decode(data, 1, 4, 4, "p", most_pixels=99),
        lambda: read_mask(data, (10, 10), "p", most_pixels=99),
    ]
    for read in reads:
        with pytest.raises(BadRequest, match=f"{MAX_SIDE} pixels a side or 99 in all") as error:
            read()
        assert error.value.code == "image_too_large"


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_edited(mode: str) -> None:
    mask = Image.new(mode, (3, 2), (255,) * len(mode))
    mask.putpixel((1, 0), (255,) * (len(mode) - 1) + (0,))
    assert read_mask(file(mask), (3, 2), "mask").tolist() == [[[0, 1, 0], [0, 0, 0]]]


def test_a_transparent_colour_of_a_palette_is_edited() -> None:
    mask = Image.new("P", (2, 1))
    mask.putpalette([255, 255, 255, 255, 0, 0])
    mask.putpixel((1, 0), 1)
    assert read_mask(file(mask, transparency=0), (2, 1), "mask").tolist() == [[[1, 0]]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_what_is_white_is_edited_where_nothing_is_transparent(mode: str) -> None:
    mask = Image.new("L", (2, 1))
    mask.putpixel((0, 0), 255)
    array = read_mask(file(mask.convert(mode)), (2, 1), "mask")
    assert array.dtype == np.float32
    assert array.tolist() == [[[1, 0]]]


def test_sixteen_bits_of_a_mask() -> None:
    assert read_mask(file(Image.fromarray(np.array([[0, 40000]], np.uint16))), (2, 1), "mask").tolist() == [
        [[0, 1]]
    ]


def test_a_mask_is_turned_as_its_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    mask = Image.new("L", (2, 1))
    mask.putpixel((0, 0), 255)
    assert read_mask(file(mask, exif=exif), (2, 1), "mask").tolist() == [[[0, 1]]]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(BadRequest, match="3x2 pixels, the picture 2x3") as error:
        read_mask(file(Image.new("L", (3, 2))), (2, 3), "mask")
    assert (error.value.code, error.value.param) == ("invalid_mask", "mask")


# -- resampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_is_fitted_to_a_size(channels: int) -> None:
    pixels = np.full((channels, 6, 4), 0.75, np.float32)
    again = fitted(pixels, 3, 8)
    assert again.shape == (channels, 3, 8)
    assert again.dtype == np.float32
    assert np.abs(again - 0.75).max() < 1e-6
    assert fitted(pixels, 6, 4) is pixels


def test_a_fitted_mask_stays_one_of_two() -> None:
    mask = (np.random.default_rng(0).random((1, 33, 17)) > 0.5).astype(np.float32)
    assert set(np.unique(fitted(mask, 8, 9, nearest=True))) == {0, 1}


def test_colours_that_do_not_show_are_not_mixed_in() -> None:
    pixels = np.zeros((4, 1, 2), np.float32)
    pixels[:, 0, 0] = (1, 0, 0, 1)  # red beside transparent green
    pixels[:, 0, 1] = (0, 1, 0, 0)
    mixed = fitted(pixels, 1, 1)[:, 0, 0]
    assert mixed[:3].tolist() == [1, 0, 0]
    assert mixed[3] == 0.5


# -- refusing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    assert refused(file(corners(), kind)).code == "invalid_image"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"<!doctype html><title>404</title>",
        b"%PDF-1.7\n",
        b"\x1f\x8b\x08\0" * 9,
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert refused(data).code == "invalid_image"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_other_formats_behind_the_first_bytes_of_one_of_ours(kind: str, start: bytes) -> None:
    assert refused(start + file(corners(), kind)).code == "invalid_image"


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (0, 0)])
def test_a_picture_without_pixels_is_refused(width: int, height: int) -> None:
    assert refused(png(width, height, 8, 0, b"")).code == "invalid_image"


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
    return png(width, height, 8, 6, bytes(1000))


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


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_what_unpacks_to_much_more_beside_the_picture_costs_little(name: bytes) -> None:
    """Text and colour profiles may be compressed as well: 64 MB in 64 kB."""
    data = png(1, 1, 8, 0, b"\0\0", chunk(name, b"name\0\0" + zlib.compress(bytes(64 << 20))))
    tracemalloc.start()
    try:
        assert read_picture(data, 1, "p").shape == (1, 1, 1)
    except BadRequest as error:
        assert error.code == "invalid_image"  # noqa: PT017 - either is right
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_profile_of_a_megabyte_is_not_minded() -> None:
    assert read_picture(file(corners(), icc_profile=bytes(1 << 20)), 3, "p").shape == (3, 2, 2)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    """Each is a few bytes of the file and as long to decode as the picture is large."""
    whole = file(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    assert read_picture(whole[:-2] + 20 * last + whole[-2:], 1, "p").shape == (1, 64, 64)
    assert "scans" in refused(whole[:-2] + 50 * last + whole[-2:]).message


def originals() -> list[bytes]:
    """Small files of many kinds, with what cameras and programs write beside the picture."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 12, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a", "b" * 50, zip=True)
    texts.add_itxt("c", "d" * 40, "en", "x", zip=True)
    several: dict[str, Any] = {"save_all": True, "append_images": [picture.rotate(180)]}
    return [
        file(picture, exif=exif, pnginfo=texts, icc_profile=bytes(200)),
        file(picture.convert("P"), transparency=3),
        file(picture.convert("1")),
        file(picture.convert("LA")),
        file(Image.fromarray(np.arange(192, dtype=np.uint16).reshape(16, 12) * 300)),
        file(picture, **several),
        file(picture, "JPEG", exif=exif, icc_profile=bytes(200)),
        file(picture, "JPEG", progressive=True),
        file(picture.convert("CMYK"), "JPEG"),
        file(picture, "MPO", **several),
        file(picture, "WEBP", exif=exif, icc_profile=bytes(200)),
        file(picture.convert("RGBA"), "WEBP", lossless=True),
        file(picture, "WEBP", **several),
    ]


ORIGINALS = originals()
changes = st.tuples(st.integers(0, 1 << 20), st.sampled_from("=-+<"), st.binary(min_size=1, max_size=12))


def changed(data: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    """Bytes overwritten, left out, put in, or everything behind them cut off."""
    body = bytearray(data)
    for place, kind, content in edits:
        at = place % (len(body) + 1)
        match kind:
            case "=":
                body[at : at + len(content)] = content
            case "-":
                del body[at : at + len(content)]
            case "+":
                body[at:at] = content
            case _:
                del body[at:]
    return bytes(body)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of what it skips in damaged metadata
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(ORIGINALS), st.lists(changes, min_size=1, max_size=6))
def test_damaged_pictures_are_read_or_refused(original: bytes, edits: list[tuple[int, str, bytes]]) -> None:
    """Nothing but BadRequest comes out, whatever bytes go in."""
    data = changed(original, edits)
    try:
        assert decode(data, 3, 8, 8, "p").shape == (3, 8, 8)
        assert read_mask(data, (12, 16), "p").shape == (1, 16, 12)
    except BadRequest as error:
        assert error.code in ("invalid_image", "image_too_large", "invalid_mask")  # noqa: PT017 - either is right
