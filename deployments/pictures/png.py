"""PNG written for speed: a fixed filter for all lines and, for large pictures, a way of compression chosen by a sample.

Searching a filter for each line and a match for each byte takes 5 to 20 times as long, for photographs a few percent smaller.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}
_NONE: Final = 0
_UP: Final = 2
# Bytes: up to here two ways are tried on all of the picture, above three on as much of it.
_SAMPLE: Final = 1 << 15


class _Way(NamedTuple):
    level: int
    strategy: int


_HUFFMAN: Final = _Way(1, zlib.Z_HUFFMAN_ONLY)
_RUNS: Final = _Way(1, zlib.Z_RLE)
_MATCHES: Final = _Way(6, zlib.Z_DEFAULT_STRATEGY)
_QUICK_MATCHES: Final = _Way(1, zlib.Z_DEFAULT_STRATEGY)
_THOROUGH: Final = _Way(9, zlib.Z_DEFAULT_STRATEGY)
# Of differences, whose short matches are chance.
_LONG_MATCHES: Final = _Way(6, zlib.Z_FILTERED)


def write_png(pixels: Bytes, notes: Mapping[str, str]) -> bytes:
    """A PNG of [height, width, channels], with `notes` as international text chunks. Same arguments, same bytes."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            *(_chunk(b"iTXt", _text(key, value)) for key, value in notes.items()),
            _chunk(b"IDAT", _compressed(pixels.reshape(height, -1))),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join(
        [
            struct.pack(">I", len(content)),
            kind,
            content,
            struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))),
        ]
    )


def _text(key: str, value: str) -> bytes:
    # Neither compressed nor in a named language.
    return key.encode("latin-1") + b"\0\0\0\0\0" + value.encode()


def _compressed(rows: Bytes) -> bytes:
    lines = _filtered(rows, _UP)
    if lines.size <= _SAMPLE:
        # Small pictures are drawings as often as photographs: there whole colours repeat, and differences hide that.
        ways = [(lines, _LONG_MATCHES), (_filtered(rows, _NONE), _THOROUGH)]
        return min((_deflated(part, way) for part, way in ways), key=len)
    return _deflated(lines, _way(lines[:: -(-lines.size // _SAMPLE)]))


def _filtered(rows: Bytes, kind: int) -> Bytes:
    lines = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    lines[:, 0] = kind
    lines[:, 1:] = rows
    if kind == _UP:
        lines[1:, 1:] -= rows[:-1]
    return lines


def _way(sample: Bytes) -> _Way:
    """The smallest way that is fast: looking for runs or matches takes longest where few are found."""
    huffman, runs, matches = (len(_deflated(sample, way)) for way in (_HUFFMAN, _RUNS, _QUICK_MATCHES))
    if min(runs, matches) < huffman / 4:
        return _MATCHES
    return _RUNS if runs < 0.85 * huffman else _HUFFMAN


def _deflated(lines: Bytes, way: _Way) -> bytes:
    stream = zlib.compressobj(way.level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, way.strategy)
    return stream.compress(np.ascontiguousarray(lines).data) + stream.flush()
