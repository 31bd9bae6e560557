"""What as many bytes hold as JPEG and WebP, beside another form of the same pictures. Knows no model."""

import io
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from PIL import Image

from deployments.messages.latents import Compression, File
from deployments.pictures.reading import read_picture
from deployments.pictures.writing import encode
from model_store.session import Array

Kind: TypeAlias = Literal["jpeg", "webp"]

# What makes files small, but for the quality; what is transparent keeps its colours, which count as well.
_OPTIONS: Final[dict[Kind, dict[str, Any]]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 6, "exact": True},
}
_QUALITIES: Final = range(1, 101)


def compared(
    pictures: Sequence[Array], made: Sequence[bytes], data: bytes
) -> tuple[Compression, list[float | None]]:
    """How near PNGs made from `data` are to the pictures they stand for, together and each, beside files of as many bytes.

    Pictures are values in [0, 1], [channels, height, width]. All of them are one file, so that they share its header as they
    share that of `data`. Slow: run it beside the event loop.
    """
    originals = np.stack(
        [_seen(encode(each), len(each)) for each in pictures]
    )  # with 8 bits, as files keep them
    count, channels, height, width = originals.shape
    shown = np.stack([_seen(png, channels) for png in made])
    whole, cut = _sheet(originals)

    def filed(kind: Kind) -> File:
        file = best_within(whole, kind, len(data))
        return File(len(file), _psnr(originals, cut(_seen(file, channels))), len(file) <= len(data))

    compression = Compression(
        data,
        8 * len(data) / (count * height * width),
        _psnr(originals, shown),
        jpeg=None if channels == 4 else filed("jpeg"),
        webp=filed("webp"),
    )
    return compression, [_psnr(original, other) for original, other in zip(originals, shown, strict=True)]


def best_within(pixels: Array, kind: Kind, size: int) -> bytes:
    """The file of the best quality that has at most `size` bytes; where none is so small, the smallest.

    Pixels are values in [0, 1], [channels, height, width].
    """
    picture = Image.open(io.BytesIO(encode(pixels)))

    def written(quality: int) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, quality=quality, **_OPTIONS[kind])
        return file.getvalue()

    smallest = written(_QUALITIES[0])
    if len(smallest) > size:
        return smallest
    # Sizes grow with the quality, but for a byte here and there.
    place = bisect_right(_QUALITIES, size, lo=1, key=lambda quality: len(written(quality)))
    return written(_QUALITIES[place - 1])


def _sheet(pictures: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Pictures [count, channels, height, width] side by side, near to a square, and the way back; what is left is black."""
    count, channels, height, width = pictures.shape
    across = math.ceil(math.sqrt(count * height / width))
    down = math.ceil(count / across)
    cells = np.zeros((down * across, channels, height, width), np.float32)
    cells[:count] = pictures
    tiled = cells.reshape(down, across, channels, height, width).transpose(2, 0, 3, 1, 4)

    def cut(whole: Array) -> Array:
        parts = whole.reshape(channels, down, height, across, width).transpose(1, 3, 0, 2, 4)
        alone: Array = parts.reshape(cells.shape)[:count]
        return alone

    return tiled.reshape(channels, down * height, across * width), cut


def _seen(file: bytes, channels: int) -> Array:
    return read_picture(file, channels, "")


def _psnr(pixels: Array, others: Array) -> float | None:
    """In dB of values in [0, 1]; None where nothing differs."""
    error = float(np.square(pixels - others, dtype=np.float64).mean())
    return -10 * math.log10(error) if error else None
