"""Arrays to encoded pictures: PNG, JPEG, WebP. Knows no model."""

import io
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.errors import BadRequest
from deployments.pictures.png import write_png
from deployments.pictures.provenance import XMP
from model_store.session import Array

Kind: TypeAlias = Literal["png", "jpeg", "webp"]
Background: TypeAlias = Literal["auto", "transparent", "opaque"]

# Rows converted at once: what is in work stays in the core's cache.
_STRIPE: Final = 64

# Black, deep violet, magenta, orange, pale yellow: dark to light evenly, readable in grey as well.
_HEAT: Final = np.array(
    [[0, 0, 4], [58, 15, 109], [148, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], np.float32
)


def keeps_alpha(background: Background, kind: Kind, channels: int) -> bool:
    """Whether a picture of this many channels is written with its alpha. Raises BadRequest where it should and cannot."""
    if background == "transparent" and channels != 4:
        raise BadRequest(
            "This model's pictures have no alpha channel: 'background' can be 'auto' or 'opaque'.",
            code="invalid_background",
            param="background",
        )
    if background == "transparent" and kind == "jpeg":
        raise BadRequest(
            "JPEG has no alpha channel: use png or webp for a transparent background.",
            code="invalid_background",
            param="background",
        )
    return channels == 4 and background != "opaque" and kind != "jpeg"


def encode(
    pixels: Array,
    kind: Kind = "png",
    quality: int = 90,
    *,
    alpha: bool = True,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """Encode values in [0, 1], [channels, height, width]; same arguments, same bytes.

    Without `alpha`, and in JPEGs, pictures of four channels are laid over white. `notes` travel in the file: all of them as
    text chunks of PNG, of other kinds the one under `XMP`. Slow for large pictures: run it beside the event loop.
    """
    notes = notes or {}
    if len(pixels) == 4 and (not alpha or kind == "jpeg"):
        pixels = pixels[:3] * pixels[3:] + (1 - pixels[3:])
    whole = _quantized(pixels)
    if kind == "png":
        return write_png(whole, notes)
    file = io.BytesIO()
    packet = {"xmp": notes[XMP].encode()} if XMP in notes else {}
    Image.fromarray(whole.squeeze(-1) if len(pixels) == 1 else whole).save(
        file, kind, quality=quality, **packet
    )
    return file.getvalue()


def _quantized(pixels: Array) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes, [height, width, channels]."""
    channels, height, width = pixels.shape
    whole = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, _STRIPE):
        stripe = (pixels[:, top : top + _STRIPE].clip(0, 1) * 255 + 0.5).astype(np.uint8)
        for channel in range(channels):  # one by one is faster than all of a pixel
            whole[top : top + _STRIPE, :, channel] = stripe[channel]
    return whole


def heat(values: Array) -> Array:
    """Colour a map: float [height, width] in [0, 1] to [3, height, width] in [0, 1], dark is low."""
    position = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    low = np.floor(position).astype(int).clip(0, len(_HEAT) - 2)
    part = (position - low)[..., None]
    colours = _HEAT[low] * (1 - part) + _HEAT[low + 1] * part
    shown: Array = (colours / 255).transpose(2, 0, 1)
    return shown
