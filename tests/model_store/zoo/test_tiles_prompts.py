import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model_store.zoo.tiles_captions import Caption
from model_store.zoo.tiles_prompts import TOKENS, encode, make_tokenizer, said

DRAGON = Caption(("red", "swamp", "dragon"), ("animal", "monster"))
TOKENIZER = make_tokenizer([str(DRAGON)] * 3, 320)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return TOKENIZER


def test_a_word_is_the_same_wherever_it_stands(tokenizer: Tokenizer) -> None:
    first, last = (tokenizer.encode(text).ids for text in ("dragon red", "red dragon"))
    assert sorted(first) == sorted(last)
    assert tokenizer.encode("RED Dragon").ids == last


@given(st.text(max_size=40))
def test_any_text_has_ids_of_one_length(text: str) -> None:
    ids, lengths = encode(TOKENIZER, [text, ""])
    assert ids.shape == (2, TOKENS)
    assert lengths[1] == 0
    assert not ids[0, int(lengths[0]) :].any()


def test_what_is_too_long_is_cut(tokenizer: Tokenizer) -> None:
    ids, lengths = encode(tokenizer, ["dragon " * 100])
    assert (ids.shape, lengths.tolist()) == ((1, TOKENS), [TOKENS])


def test_what_is_said_is_true_and_something() -> None:
    chance = random.Random(0)
    heard = [said(DRAGON, chance).replace(",", "").split() for _ in range(300)]
    assert all(set(words) <= DRAGON.words and len(words) >= 2 for words in heard)
    assert len({tuple(words) for words in heard}) > 10
    assert sum(len(words) == 5 for words in heard) > 100


def test_little_can_be_said_of_a_single_word() -> None:
    assert said(Caption(("rat",), ()), random.Random(0)) == "rat"
    assert said(Caption((), ("wall",)), random.Random(0)) == "wall"
