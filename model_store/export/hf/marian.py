"""Marian's two SentencePiece models and their joint vocabulary as one `tokenizer.json`. Runs no SentencePiece.

Texts are cut into the source model's pieces, and answers read with the target's, which have ids of their own. A piece that
only the target has is far less probable than any text in the source's pieces, so it never stands for what those can say.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model_store.export.errors import DraftError

SOURCE: Final = "source.spm"
VOCABULARY: Final = "vocab.json"
END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"

_FOREIGN_LETTER: Final = -1e6
_FOREIGN: Final = -1e9
"""Log-probability of a piece that the source model does not have: only a letter that it does not know either is one."""

_UNIGRAM: Final = 1
_LENGTHS: Final = {1: 8, 5: 4}  # bytes of the wire types of fixed size
_MARK: Final = "▁"


@dataclass(frozen=True)
class Pieces:
    """What a SentencePiece model says: log-probabilities by piece, and how text is normalised before."""

    scores: dict[str, float]
    charsmap: bytes
    unigram: bool


def marian_tokenizer(folder: Path) -> bytes:
    """The content of a `tokenizer.json`. Raises DraftError for files that are missing or of another kind."""
    for name in (SOURCE, VOCABULARY):
        if not (folder / name).is_file():
            raise DraftError(f"there is neither a tokenizer.json nor a {name}")
    try:
        pieces = read_pieces((folder / SOURCE).read_bytes())
        ids: dict[str, int] = json.loads((folder / VOCABULARY).read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise DraftError(f"{SOURCE} or {VOCABULARY} cannot be read: {error!s:.120}") from error
    if not pieces.unigram:
        raise DraftError(f"{SOURCE} is no unigram model")
    if sorted(ids.values()) != list(range(len(ids))) or not {END, UNKNOWN} <= ids.keys():
        raise DraftError(f"{VOCABULARY} does not number its pieces from 0 on, with {END} and {UNKNOWN}")
    content: str = _tokenizer(pieces, ids).to_str()
    return content.encode()


def _tokenizer(pieces: Pieces, ids: dict[str, int]) -> Tokenizer:
    special = [token for token in (END, UNKNOWN, PADDING) if token in ids]
    in_order = sorted(ids, key=ids.__getitem__)
    foreign = (_FOREIGN, _FOREIGN_LETTER)
    scored = [(piece, pieces.scores.get(piece, foreign[len(piece) == 1])) for piece in in_order]
    made = Tokenizer(models.Unigram(scored, unk_id=ids[UNKNOWN], byte_fallback=False))
    steps = [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
    made.normalizer = normalizers.Sequence(
        [*steps, normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_MARK, prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement=_MARK, prepend_scheme="always")
    made.add_special_tokens(special)
    # The language that a model of several is to write: a token before the text.
    languages = [piece for piece in in_order if piece.startswith(">>") and piece.endswith("<<")]
    made.add_tokens([AddedToken(piece, normalized=False) for piece in languages])
    made.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, ids[END])])
    return made


def read_pieces(model: bytes) -> Pieces:
    """Read a SentencePiece model's file (a protocol buffer). Raises ValueError, IndexError, struct.error where it is none."""
    scores: dict[str, float] = {}
    charsmap, kind = b"", _UNIGRAM
    for number, value in _fields(model):
        if number == 1 and isinstance(value, bytes):
            piece = dict(_fields(value))
            text, score = piece.get(1, b""), piece.get(2, b"\0" * 4)
            # Normal pieces only: control and unknown ones are no text.
            if isinstance(text, bytes) and isinstance(score, bytes) and piece.get(3, 1) in {1, 4}:
                scores[text.decode()] = struct.unpack("<f", score)[0]
        elif number == 2 and isinstance(value, bytes):
            found = dict(_fields(value)).get(3, _UNIGRAM)
            kind = found if isinstance(found, int) else _UNIGRAM
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value)).get(2, b"")
            charsmap = normalizer if isinstance(normalizer, bytes) else b""
    if not scores:
        raise ValueError("it has no pieces")
    return Pieces(scores, charsmap, kind == _UNIGRAM)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a protocol buffer's message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(message, place)
        elif wire in _LENGTHS:
            size = _LENGTHS[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(message):
            raise ValueError("it is cut off")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
