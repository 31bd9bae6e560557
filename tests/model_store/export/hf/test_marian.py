import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from tokenizers import Tokenizer

from deployments.text.vocabulary import Vocabulary
from model_store.export.errors import DraftError
from model_store.export.hf.marian import marian_tokenizer, read_pieces

SOURCE: Final = {
    "▁": -3.0,
    "▁the": -2.0,
    "▁cat": -4.0,
    "s": -3.5,
    "c": -6.0,
    "a": -6.0,
    "t": -6.0,
    "h": -6.0,
    "e": -6.0,
}
TARGET: Final = ("▁le", "▁chat", "cat", "é", "▁cats")
VOCABULARY: Final = {
    piece: place for place, piece in enumerate(("</s>", "<unk>", *SOURCE, *TARGET, ">>fra<<", "<pad>"))
}


def field(number: int, value: bytes | float) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    size = len(value)
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7]) + value


def sentencepiece(scores: Mapping[str, float] = SOURCE, *, kind: int = 1) -> bytes:
    """A model's file: control pieces, then normal ones."""
    control = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    pieces = [field(1, piece.encode()) + field(2, 0.0) + field(3, mark) for piece, mark in control]
    pieces += [field(1, piece.encode()) + field(2, score) for piece, score in scores.items()]
    trainer, normalizer = field(3, kind) + field(10, 1.0), field(1, b"identity")
    return b"".join([*(field(1, piece) for piece in pieces), field(2, trainer), field(3, normalizer)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source.spm").write_bytes(sentencepiece())
    (tmp_path / "vocab.json").write_text(json.dumps(VOCABULARY))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the cats", ["▁the", "▁cat", "s"]),  # and not the target's own word
        ("  the   cat ", ["▁the", "▁cat"]),
        ("cathe", ["▁cat", "h", "e"]),
        (">>fra<< the cat", [">>fra<<", "▁the", "▁cat"]),
        ("the é", ["▁the", "▁", "é"]),  # a letter only the target knows
        ("the 日", ["▁the", "▁", "<unk>"]),
        ("", []),
    ],
)
def test_texts_are_cut_into_the_sources_pieces(folder: Path, text: str, pieces: list[str]) -> None:
    tokenizer = Tokenizer.from_buffer(marian_tokenizer(folder))
    assert tokenizer.encode(text).ids == [VOCABULARY[piece] for piece in [*pieces, "</s>"]]


def test_answers_are_read_in_the_targets_pieces(folder: Path) -> None:
    vocabulary = Vocabulary(marian_tokenizer(folder), len(VOCABULARY))
    answer = [VOCABULARY[piece] for piece in ("▁le", "▁chat", "é", "s", "</s>")]
    assert vocabulary.decode(answer) == "le chatés"
    assert vocabulary.encode("the cat") == (VOCABULARY["▁the"], VOCABULARY["▁cat"])


def test_scores_are_read_and_control_pieces_left_out() -> None:
    pieces = read_pieces(sentencepiece())
    assert pieces.scores == SOURCE
    assert (pieces.charsmap, pieces.unigram) == (b"", True)


@pytest.mark.parametrize("name", ["source.spm", "vocab.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DraftError, match=f"nor a {name}"):
        marian_tokenizer(folder)


@pytest.mark.parametrize("cut", [1, 4, 9, 17, 40, 100])
def test_a_file_that_is_cut_off_is_refused(folder: Path, cut: int) -> None:
    (folder / "source.spm").write_bytes(sentencepiece()[:-cut])
    with pytest.raises(DraftError, match="cannot be read"):
        marian_tokenizer(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\x0b\x00", b"not a model"])
def test_what_is_no_model_is_refused(folder: Path, content: bytes) -> None:
    (folder / "source.spm").write_bytes(content)
    with pytest.raises(DraftError, match="cannot be read"):
        marian_tokenizer(folder)


def test_other_kinds_of_models_are_refused(folder: Path) -> None:
    (folder / "source.spm").write_bytes(sentencepiece(kind=2))
    with pytest.raises(DraftError, match="no unigram model"):
        marian_tokenizer(folder)


@pytest.mark.parametrize("vocabulary", [{"a": 1}, {"</s>": 0, "<unk>": 2}, {"a": 0, "b": 1}])
def test_a_vocabulary_with_gaps_is_refused(folder: Path, vocabulary: dict[str, int]) -> None:
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(DraftError, match="does not number"):
        marian_tokenizer(folder)
