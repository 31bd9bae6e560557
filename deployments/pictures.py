"""Encoded pictures to arrays and back. Refuses by the header what would be too large to decode; knows no model."""

import io
import struct
import zlib
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deployments.errors import BadRequest
from model_store.session import Array

READABLE: Final = ("PNG", "JPEG", "WEBP")
MAX_SIDE: Final = 8192  # pixels
MAX_PIXELS: Final = 16 << 20
_MODES: Final[dict[int, Literal["L", "RGB", "RGBA"]]] = {1: "L", 3: "RGB", 4: "RGBA"}

# Black, deep violet, magenta, orange, pale yellow: dark to light evenly, readable in grey as well.
_HEAT: Final = np.array(
    [[0, 0, 4], [58, 15, 109], [148, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], np.float32
)


def decode(data: bytes, channels: int, width: int, height: int, param: str) -> Array:
    """Pixels in [0, 1], float32 [channels, height, width]; another size is resampled. Raises BadRequest."""
    picture = _open(data, param)
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith(("I", "F")):  # 16 bits and more: scale down instead of clipping
            upright = Image.fromarray((np.asarray(upright, np.float32) / 257).clip(0, 255).astype(np.uint8))
        if channels != 4 and upright.has_transparency_data:  # what is transparent shows black
            opaque = Image.new("RGBA", upright.size, (0, 0, 0, 255))
            upright = Image.alpha_composite(opaque, upright.convert("RGBA"))
        fitted = upright.convert(_MODES[channels])
        if fitted.size != (width, height):
            fitted = fitted.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError, struct.error) as error:  # what fuzzing made Pillow raise
        raise BadRequest("The image is damaged or incomplete.", code="invalid_image", param=param) from error
    pixels = np.asarray(fitted, np.float32) / 255
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_mask(data: bytes, size: tuple[int, int], param: str) -> Array:
    """1 where a picture is to be made up, float32 [1, height, width]."""
    return (decode(data, 1, *size, param) > 0.5).astype(np.float32)


def _open(data: bytes, param: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=READABLE)
    except Image.DecompressionBombError as error:
        raise _too_large(param) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadRequest("This is no PNG, JPEG or WebP image.", code="invalid_image", param=param) from error
    if max(picture.size) > MAX_SIDE or picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise _too_large(param)
    # JPEGs of phones may carry further pictures (MPO): the first is the one that is meant.
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        raise BadRequest("Animated images are not supported.", code="invalid_image", param=param)
    return picture


def _too_large(param: str) -> BadRequest:
    return BadRequest(
        f"The image has more than {MAX_SIDE} pixels a side or {MAX_PIXELS} in all.",
        code="image_too_large",
        param=param,
    )


def encode(pixels: Array, kind: Literal["png", "jpeg", "webp"] = "png", quality: int = 90) -> bytes:
    """Encode values in [0, 1], [channels, height, width]. Slow for large pictures: run it beside the event loop."""
    bytes_ = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(
        bytes_[0] if len(bytes_) == 1 else np.ascontiguousarray(bytes_.transpose(1, 2, 0))
    )
    if kind == "jpeg" and picture.mode == "RGBA":
        picture = picture.convert("RGB")
    file = io.BytesIO()
    # Run lengths instead of zlib's search for matches: a third of the time at the same size.
    options: dict[str, int] = {"compress_type": zlib.Z_RLE} if kind == "png" else {"quality": quality}
    picture.save(file, kind, **options)
    return file.getvalue()


def heat(values: Array) -> Array:
    """Colour a map: float [height, width] in [0, 1] to [3, height, width] in [0, 1], dark is low."""
    position = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    low = np.floor(position).astype(int).clip(0, len(_HEAT) - 2)
    part = (position - low)[..., None]
    colours = _HEAT[low] * (1 - part) + _HEAT[low + 1] * part
    shown: Array = (colours / 255).transpose(2, 0, 1)
    return shown
