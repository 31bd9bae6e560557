import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from deployments.text.vocabulary import Vocabulary
from model_store.errors import InvalidManifest
from tests.packages import byte_tokenizer

TEXT = "To be, or not to be: that is the question \N{EM DASH} caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{EURO SIGN}5 \N{WINKING FACE}"


TOKENIZER = byte_tokenizer()
BYTES = Vocabulary(TOKENIZER.to_str().encode(), 256)


def merged() -> Tokenizer:
    """Byte-level BPE with merges and one special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def merged_vocabulary() -> Vocabulary:
    tokenizer = merged()
    return Vocabulary(tokenizer.to_str().encode(), tokenizer.get_vocab_size())


@pytest.mark.parametrize("vocabulary", [BYTES, merged_vocabulary()], ids=["bytes", "merges"])
def test_any_text_survives_encoding(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT
    assert vocabulary.encode("") == ()


def test_merges_are_used() -> None:
    assert len(merged_vocabulary().encode(TEXT)) < len(TEXT.encode())


def test_markup_of_special_tokens_in_a_prompt_is_text() -> None:
    vocabulary = merged_vocabulary()
    end = vocabulary.size - 1
    assert vocabulary.text(end) == "<|end|>"
    assert end not in vocabulary.encode("a<|end|>b")
    assert vocabulary.decode(vocabulary.encode("a<|end|>b")) == "a<|end|>b"


def test_a_special_token_is_shown_when_it_is_said() -> None:
    vocabulary = merged_vocabulary()
    assert vocabulary.decode([*vocabulary.encode("a"), vocabulary.size - 1]) == "a<|end|>"


def test_a_special_token_may_have_letters_that_stand_for_no_byte() -> None:
    tokenizer = merged()
    tokenizer.add_special_tokens(["<end of text>", "\N{SNOWMAN}"])
    size = tokenizer.get_vocab_size()
    vocabulary = Vocabulary(tokenizer.to_str().encode(), size)
    assert vocabulary.decode([size - 2, size - 1]) == "<end of text>\N{SNOWMAN}"
    assert tokenizer.decode([size - 2, size - 1], skip_special_tokens=False) == "<end of text>\N{SNOWMAN}"


@given(st.lists(st.integers(0, 255)))
def test_decoding_agrees_with_the_tokenizer_also_on_broken_bytes(tokens: list[int]) -> None:
    assert BYTES.decode(tokens) == TOKENIZER.decode(tokens, skip_special_tokens=False)


@given(st.lists(st.one_of(st.integers(0, 255), st.sampled_from([0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F]))))
def test_token_by_token_gives_the_same_text(tokens: list[int]) -> None:
    stream = BYTES.stream()
    pieces = [stream.feed(token) for token in tokens]
    assert "".join(pieces) + stream.flush() == BYTES.decode(tokens)


@given(st.text())
def test_a_character_comes_whole_with_its_last_byte(text: str) -> None:
    stream = BYTES.stream()
    pieces = [stream.feed(token) for token in BYTES.encode(text)]
    assert "".join(pieces) == text
    assert stream.flush() == ""


def test_a_character_cut_off_is_shown_as_replaced() -> None:
    stream = BYTES.stream()
    assert [stream.feed(token) for token in b"\xe2\x82"] == ["", ""]
    assert stream.flush() == "\N{REPLACEMENT CHARACTER}"
    assert stream.flush() == ""


def test_many_broken_bytes_cost_no_more_than_whole_ones() -> None:
    """Decoding all of them anew at every token took seconds."""
    stream = BYTES.stream()
    began = time.perf_counter()
    for _ in range(20_000):
        stream.feed(0xFF)
    assert time.perf_counter() - began < 1


def test_parts_of_characters_are_shown_as_bytes() -> None:
    assert BYTES.text(0xE2) == "bytes:\\xe2"
    assert BYTES.text(ord("a")) == "a"
    assert BYTES.text(ord("\n")) == "\n"


def test_ids_that_the_tokenizer_does_not_know_are_silent() -> None:
    """A vocabulary may be padded to a round size."""
    vocabulary = Vocabulary(byte_tokenizer().to_str().encode(), 260)
    assert vocabulary.decode([97, 259, 98]) == "ab"
    assert vocabulary.text(259) == ""


def test_a_tokenizer_of_words_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))  # noqa: S106
    with pytest.raises(InvalidManifest, match="byte-level"):
        Vocabulary(tokenizer.to_str().encode(), 1)
