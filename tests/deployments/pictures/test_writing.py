import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.errors import BadRequest
from deployments.pictures import Kind, decode, encode, heat, keeps_alpha, provenance
from deployments.pictures.provenance import XMP


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def test_a_png_gives_back_what_it_was_made_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 130)).astype(np.float32) / 255
    assert np.abs(decode(encode(pixels), 3, 130, 70, "p") - pixels).max() < 1e-6


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_format_is_written(kind: Kind, channels: int) -> None:
    data = encode(np.full((channels, 16, 16), 0.5, np.float32), kind)
    assert opened(data).format == kind.upper()
    # Half transparent: laid over white in a JPEG, over black by the reader.
    expected = 0.5 if channels != 4 else 0.75 if kind == "jpeg" else 0.25
    assert np.abs(decode(data, 3, 16, 16, "p") - expected).max() < 0.02


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_quality_is_honoured(kind: Kind) -> None:
    pixels = np.random.default_rng(0).random((3, 32, 32), np.float32)
    sizes = [len(encode(pixels, kind, quality)) for quality in (0, 50, 100)]
    assert sizes == sorted(set(sizes))


def test_values_outside_the_range_are_clipped() -> None:
    pixels = np.array([[[-1.0, 0.0, 1.0, 9.0]]], np.float32)
    assert decode(encode(pixels), 1, 4, 1, "p").tolist() == [[[0, 0, 1, 1]]]


# -- backgrounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("background", "kind", "channels", "kept"),
    [
        ("auto", "png", 4, True),
        ("auto", "webp", 4, True),
        ("auto", "jpeg", 4, False),
        ("auto", "png", 3, False),
        ("opaque", "png", 4, False),
        ("opaque", "jpeg", 1, False),
        ("transparent", "png", 4, True),
        ("transparent", "webp", 4, True),
    ],
)
def test_whether_alpha_is_kept(background: Any, kind: Kind, channels: int, *, kept: bool) -> None:
    assert keeps_alpha(background, kind, channels) is kept


@pytest.mark.parametrize(
    ("kind", "channels", "word"), [("png", 3, "model"), ("jpeg", 1, "model"), ("jpeg", 4, "JPEG")]
)
def test_a_transparent_background_that_cannot_be(kind: Kind, channels: int, word: str) -> None:
    with pytest.raises(BadRequest, match=word) as error:
        keeps_alpha("transparent", kind, channels)
    assert (error.value.code, error.value.param) == ("invalid_background", "background")


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_alpha_is_kept_or_laid_over_white(kind: Kind) -> None:
    pixels = np.zeros((4, 16, 16), np.float32)
    pixels[3, :, 8:] = 1  # transparent black, then black
    kept = opened(encode(pixels, kind, 100))
    assert kept.mode == "RGBA"
    assert kept.getchannel("A").getextrema() == (0, 255)
    laid = opened(encode(pixels, kind, 100, alpha=False))
    assert laid.mode == "RGB"
    assert min(laid.getpixel((2, 8))) > 250  # type: ignore[arg-type]
    assert max(laid.getpixel((13, 8))) < 5  # type: ignore[arg-type]


# -- notes -------------------------------------------------------------------------------------------------------------

NOTES = provenance("tiles-flow", "1", 7, 20)


def test_a_png_carries_every_note() -> None:
    text = opened(encode(np.zeros((1, 4, 4), np.float32), notes=NOTES)).text  # type: ignore[attr-defined]
    assert text == NOTES


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_format_carries_the_xmp_packet(kind: Kind) -> None:
    picture = opened(encode(np.zeros((3, 8, 8), np.float32), kind, notes=NOTES))
    packet = picture.info["xmp"]
    assert (packet if isinstance(packet, str) else packet.decode()) == NOTES[XMP]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_nothing_is_noted_unasked(kind: Kind) -> None:
    info = opened(encode(np.zeros((3, 8, 8), np.float32), kind)).info
    assert not {"xmp", "exif", "Software", "comment"} & info.keys()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_same_picture_is_the_same_bytes(kind: Kind) -> None:
    pixels = np.random.default_rng(0).random((4, 40, 40), np.float32)
    assert encode(pixels, kind, notes=NOTES) == encode(pixels.copy(), kind, notes=dict(NOTES))


# -- maps --------------------------------------------------------------------------------------------------------------


def test_heat_runs_from_dark_to_light() -> None:
    coloured = heat(np.linspace(-0.5, 1.5, 50, dtype=np.float32)[None])
    assert coloured.shape == (3, 1, 50)
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    brightness = (coloured * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(axis=0)[0]
    assert (np.diff(brightness) >= -1e-6).all()
    assert brightness[-1] - brightness[0] > 0.8
