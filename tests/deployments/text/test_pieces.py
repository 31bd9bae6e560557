from typing import Any

import pytest

from deployments.text.pieces import Pieces, byte_alphabet
from model_store.errors import InvalidManifest

MARK = "\N{LOWER ONE EIGHTH BLOCK}"
SPACES = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def chain(*steps: dict[str, Any]) -> Pieces:
    return Pieces({"type": "Sequence", "decoders": list(steps)})


def test_letters_of_byte_level_tokens_are_bytes() -> None:
    pieces = Pieces({"type": "ByteLevel"})
    assert pieces.bytes_of("\u0120be") == b" be"
    assert pieces.bytes_of("\u00c3\u00a9") == "\u00e9".encode()
    assert pieces.bytes_of("<\N{SNOWMAN}>") == "<\N{SNOWMAN}>".encode()
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_sentencepiece_writes_spaces_as_marks_and_bytes_as_numbers() -> None:
    pieces = chain(SPACES, FALLBACK, FUSE, STRIP)
    assert pieces.strip == 1
    assert pieces.bytes_of(MARK + "be") == pieces.bytes_of(MARK + "be", first=True) == b" be"
    assert pieces.bytes_of("<0xE2>") == b"\xe2"
    assert [pieces.bytes_of(word) for word in ("<0xe2>", "<0xE2", "<0xE23>")] == [
        b"<0xe2>",
        b"<0xE2",
        b"<0xE23>",
    ]


@pytest.mark.parametrize(("scheme", "first"), [("always", b"a b"), ("first", b"a b"), ("never", b" a b")])
def test_metaspace_takes_its_marks_from_the_first_token(scheme: str, first: bytes) -> None:
    pieces = Pieces({"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme})
    assert pieces.bytes_of(f"{MARK}a{MARK}b") == b" a b"
    assert pieces.bytes_of(f"{MARK}a b", first=True) == first


def test_pieces_of_words_are_joined_and_punctuation_drawn_near() -> None:
    pieces = Pieces({"type": "WordPiece", "prefix": "##", "cleanup": True})
    assert pieces.bytes_of("be") == b" be"
    assert pieces.bytes_of("be", first=True) == b"be"
    assert pieces.bytes_of("##ing") == b"ing"
    assert pieces.bytes_of("##ing", first=True) == b"##ing"
    assert pieces.bytes_of(",") == b","
    assert Pieces({"type": "WordPiece", "prefix": "##", "cleanup": False}).bytes_of(",") == b" ,"


def test_without_a_decoder_tokens_are_words() -> None:
    assert Pieces(None).bytes_of("be") == b" be"
    assert Pieces(None).bytes_of("be", first=True) == b"be"


def test_spaces_may_be_stripped_of_each_token() -> None:
    assert chain(STRIP, FUSE).strip == 0
    assert chain(STRIP, FUSE).bytes_of("  a") == b" a"
    assert chain(STRIP, FUSE).bytes_of("a") == b"a"


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        ({"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True}, "a step CTC"),
        ({"type": "BPEDecoder", "suffix": "</w>"}, "a step BPEDecoder"),
        ({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, "regular expression"),
        ({"type": "Strip", "content": " ", "start": 0, "stop": 1}, "leading spaces"),
        ({"type": "Strip", "content": "x", "start": 1, "stop": 0}, "leading spaces"),
    ],
)
def test_a_decoder_that_cannot_run_token_by_token_is_refused(decoder: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidManifest, match=reason):
        Pieces(decoder)
