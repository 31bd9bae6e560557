"""Encoded pictures to arrays. Refuses by the header what would be too large to decode; knows no model."""

import io
import struct
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deployments.errors import BadRequest
from model_store.session import Array

READABLE: Final = ("PNG", "JPEG", "WEBP")
MAX_SIDE: Final = 8192  # pixels
MAX_PIXELS: Final = 16 << 20
# A progressive JPEG has about ten scans. Each takes as long as decoding the picture, and no more than some bytes of the file.
_MAX_SCANS: Final = 50
_SCAN: Final = b"\xff\xda"
_MODES: Final[dict[int, Literal["L", "RGB", "RGBA"]]] = {1: "L", 3: "RGB", 4: "RGBA"}
# What fuzzing made Pillow raise.
_DAMAGE: Final = (OSError, ValueError, SyntaxError, struct.error)


def decode(
    data: bytes,
    channels: int,
    width: int,
    height: int,
    param: str,
    most_pixels: int = MAX_PIXELS,
    resize: Literal["stretch", "crop", "pad", "refuse"] = "stretch",
) -> Array:
    """Pixels in [0, 1], float32 [channels, height, width], whatever the picture's size. Raises BadRequest."""
    picture, size = _upright(data, channels, param, most_pixels), (width, height)
    if picture.size != size:
        match resize:
            case "stretch":
                picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
            case "crop":
                picture = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
            case "pad":
                picture = ImageOps.pad(picture, size, Image.Resampling.BILINEAR)
            case "refuse":
                raise BadRequest(
                    f"The model takes pictures of {width}x{height}, not {picture.width}x{picture.height}.",
                    code="invalid_size",
                    param=param,
                )
    return _array(picture)


def read_picture(data: bytes, channels: int, param: str, most_pixels: int = MAX_PIXELS) -> Array:
    """Pixels in [0, 1], float32 [channels, height, width] of the picture's own size. Raises BadRequest."""
    return _array(_upright(data, channels, param, most_pixels))


def read_mask(data: bytes, size: tuple[int, int], param: str, most_pixels: int = MAX_PIXELS) -> Array:
    """Where a picture of this width and height is to be edited: 1 there, else 0, float32 [1, height, width]. Raises BadRequest.

    That is where the mask is transparent, as in OpenAI's API; where nothing of it is, it is where it is white.
    """
    mask = _upright(data, 4, param, most_pixels)
    if mask.size != size:
        raise BadRequest(
            f"The mask has {mask.width}x{mask.height} pixels, the picture {size[0]}x{size[1]}.",
            code="invalid_mask",
            param=param,
        )
    clear = np.asarray(mask.getchannel("A")) < 128
    edited = clear if clear.any() else np.asarray(mask.convert("L")) >= 128
    return edited.astype(np.float32)[None]


def fitted(pixels: Array, height: int, width: int, *, nearest: bool = False) -> Array:
    """Pixels [channels, height, width] in another size. `nearest`: as they are, as masks are resampled, instead of mixed."""
    if pixels.shape[1:] == (height, width):
        return pixels
    way = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    planes = pixels if len(pixels) < 4 else np.concatenate([pixels[:3] * pixels[3:], pixels[3:]])
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), way)) for plane in planes]
    shown = np.stack(resized)
    if len(pixels) == 4:  # what is transparent has no part in the colours beside it
        shown[:3] /= np.maximum(shown[3:], np.float32(1 / 255))
    return shown


def _upright(data: bytes, channels: int, param: str, most_pixels: int) -> Image.Image:
    """The decoded picture as it is to be looked at, 8 bits for each of 1, 3 or 4 channels."""
    picture = _open(data, param, most_pixels)
    try:
        upright = picture
        ImageOps.exif_transpose(upright, in_place=True)
        if upright.mode.startswith(("I", "F")):  # 16 bits and more: scale down instead of clipping
            upright = Image.fromarray((np.asarray(upright, np.float32) / 257).clip(0, 255).astype(np.uint8))
        if channels != 4 and upright.has_transparency_data:  # what is transparent shows black
            opaque = Image.new("RGBA", upright.size, (0, 0, 0, 255))
            upright = Image.alpha_composite(opaque, upright.convert("RGBA"))
        mode = _MODES[channels]
        return upright if upright.mode == mode else upright.convert(mode)
    except _DAMAGE as error:
        raise BadRequest("The image is damaged or incomplete.", code="invalid_image", param=param) from error


def _open(data: bytes, param: str, most_pixels: int) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=READABLE)
        if (
            picture.width > MAX_SIDE
            or picture.height > MAX_SIDE
            or picture.width * picture.height > most_pixels
        ):
            raise _too_large(param, most_pixels)
        # JPEGs of phones may carry further pictures (MPO): the first is the one that is meant.
        animated = picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1
    except Image.DecompressionBombError as error:
        raise _too_large(param, most_pixels) from error
    except (UnidentifiedImageError, *_DAMAGE) as error:
        raise BadRequest("This is no PNG, JPEG or WebP image.", code="invalid_image", param=param) from error
    if animated:
        raise BadRequest("Animated images are not supported.", code="invalid_image", param=param)
    if picture.format in ("JPEG", "MPO") and data.count(_SCAN) > _MAX_SCANS:
        raise BadRequest(f"The JPEG has more than {_MAX_SCANS} scans.", code="invalid_image", param=param)
    return picture


def _too_large(param: str, most_pixels: int) -> BadRequest:
    return BadRequest(
        f"The image has more than {MAX_SIDE} pixels a side or {most_pixels} in all.",
        code="image_too_large",
        param=param,
    )


def _array(picture: Image.Image) -> Array:
    pixels = np.asarray(picture, np.float32) / 255
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
