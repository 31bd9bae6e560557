"""Latents in as few bytes: each number is one of 256 levels of its axis, and LZMA codes these. Knows no model and no picture.

The form: a byte of version and flags, one of how many latents there are less one, the axes' ranges unless they are known, the
levels axis by axis, and a CRC-32 of all that and of a `key`, which tells damage, and what another model made, from what can be decoded.
"""

import lzma
from dataclasses import dataclass
from typing import Final, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from model_store.session import Array

MOST: Final = 256
"""Latents in one form."""

_LEVELS: Final = 255
_VERSION: Final = 0x10
_OWN_RANGES: Final = 1
_CODED: Final = 2
_ENDS: Final = 6  # bytes around the body
# Levels are no text: no byte says much of the next one, and nothing repeats far back.
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0, "dict_size": 1 << 16}]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where each axis' levels begin and how far they are apart, float64 [size]."""

    low: NDArray[np.float64]
    step: NDArray[np.float64]

    @classmethod
    def between(cls, low: NDArray[np.float64], high: NDArray[np.float64]) -> Self:
        """Of levels from `low` to `high`."""
        return cls(low, (high - low) / _LEVELS)

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """As they were written."""
        low, step = np.frombuffer(raw, "<f4").astype(np.float64).reshape(2, -1)
        return cls(low, step)

    def written(self) -> bytes:
        """As float32."""
        return np.stack([self.low, self.step]).astype("<f4").tobytes()

    def hold(self, latents: NDArray[np.float64]) -> bool:
        """Whether no number is further from a level than half of a step."""
        return bool((np.abs(latents - self.values(self.levels(latents))) <= 0.5001 * self.step).all())

    def levels(self, latents: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The nearest level of each number."""
        steps = np.divide(latents - self.low, self.step, out=np.zeros_like(latents), where=self.step > 0)
        return np.rint(steps).clip(0, _LEVELS).astype(np.uint8)

    def values(self, levels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The numbers that levels stand for."""
        return self.low + self.step * levels


def pack(latents: Array, known: Ranges | None, key: bytes) -> bytes:
    """The form of [count, size] latents, count 1 to 256: with the ranges that are known, or with their own where these do not hold them."""
    wide = latents.astype(np.float64)
    ranges = known if known is not None and known.hold(wide) else _spanned(wide)
    own = ranges is not known
    body = (ranges.written() if own else b"") + ranges.levels(wide).T.tobytes()
    coded = lzma.compress(body, lzma.FORMAT_RAW, filters=_FILTERS)
    flags = _VERSION | own * _OWN_RANGES | (len(coded) < len(body)) * _CODED
    form = bytes([flags, len(latents) - 1]) + min(body, coded, key=len)
    return form + _check(form, key)


def unpack(data: bytes, size: int, known: Ranges | None, key: bytes) -> Array:
    """The latents of a form, float32 [count, size]. Raises BadRequest for anything else, naming `latents`."""
    form, check = data[:-4], data[-4:]
    if len(data) < _ENDS or _check(form, key) != check:
        raise _strange()
    flags, count = form[0], form[1] + 1
    own = bool(flags & _OWN_RANGES)
    head = 2 * np.dtype("<f4").itemsize * size if own else 0
    body = _decoded(form[2:], head + count * size) if flags & _CODED else form[2:]
    ranges = Ranges.read(body[:head]) if own and len(body) >= head else known
    if flags & ~(_OWN_RANGES | _CODED) != _VERSION or len(body) != head + count * size or ranges is None:
        raise _strange()
    with np.errstate(all="ignore"):  # ranges that nobody wrote
        latents = ranges.values(np.frombuffer(body[head:], np.uint8).reshape(size, count).T)
        narrow: Array = latents.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise _strange()
    return narrow


def _spanned(latents: NDArray[np.float64]) -> Ranges:
    """From each axis' least to its greatest number, as they are read again."""
    return Ranges.read(Ranges.between(latents.min(axis=0), latents.max(axis=0)).written())


def _decoded(coded: bytes, length: int) -> bytes:
    """At most one byte more than is wanted, whatever the bytes say."""
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(coded, length + 1)
    except (lzma.LZMAError, EOFError):
        raise _strange() from None


def _check(form: bytes, key: bytes) -> bytes:
    return crc32(form, crc32(key)).to_bytes(4, "little")


def _strange() -> BadRequest:
    return BadRequest(
        "These are no latents that this version of the model has compressed, or they are damaged.",
        code="invalid_latents",
        param="latents",
    )
