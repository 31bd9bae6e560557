import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_store.zoo.pairs import END, Stream, batches, marked_tokenizer, padded

SENTENCES = ["the cat sleeps", "a cat eats", "le chat dort", "un chat mange, c'est tout"] * 3


def test_marks_have_the_first_ids_and_are_one_token_each() -> None:
    tokenizer = marked_tokenizer(SENTENCES, 300, ["<|a|>", "<|b|>"])
    assert [tokenizer.token_to_id(each) for each in (END, "<|a|>", "<|b|>")] == [0, 1, 2]
    assert tokenizer.encode("<|a|>cat<|b|>x<|end|>").ids[0] == 1
    assert tokenizer.decode(tokenizer.encode("<|a|>cat<|b|>").ids) == "cat"


@given(st.text(max_size=30))
def test_any_text_can_be_encoded_and_comes_back_but_for_its_plain_form(text: str) -> None:
    tokenizer = marked_tokenizer(SENTENCES, 300)
    decoded = tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False)
    assert decoded == tokenizer.normalizer.normalize_str(text)


def test_typographic_marks_are_read_as_plain_ones() -> None:
    tokenizer = marked_tokenizer(SENTENCES, 300)
    assert tokenizer.encode("c\u2019est\u202f!").ids == tokenizer.encode("c'est !").ids
    assert tokenizer.encode("e\u0301").ids == tokenizer.encode("\u00e9").ids


def test_the_same_texts_make_the_same_tokenizer() -> None:
    made = [marked_tokenizer(SENTENCES, 320).to_str() for _ in range(2)]
    assert made[0] == made[1]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 200), st.integers())
def test_batches_hold_every_row_once_within_their_tokens(lengths: list[int], tokens: int, seed: int) -> None:
    made = batches(lengths, tokens, random.Random(seed))
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        assert batch
        assert len(batch) == 1 or max(lengths[place] for place in batch) * len(batch) <= tokens


def test_rows_of_a_batch_are_of_like_length() -> None:
    chance = random.Random(0)
    lengths = [chance.randrange(1, 60) for _ in range(5_000)]
    made = batches(lengths, 1_000, chance)
    filled = sum(len(batch) * max(lengths[place] for place in batch) for batch in made)
    assert filled < 1.03 * sum(lengths)


def test_no_two_passes_are_alike() -> None:
    chance = random.Random(0)
    lengths = [1 + place % 7 for place in range(100)]
    assert batches(lengths, 30, chance) != batches(lengths, 30, chance)


def test_a_stream_gives_every_row_of_a_pass_before_it_draws_the_next() -> None:
    passes = iter((["a", "bb", "ccc"], ["dddd"]))
    stream = Stream(lambda _: next(passes), len, tokens=3, seed=0)
    given = [stream(step) for step in range(4)]
    assert sorted(given[:3]) == [["a"], ["bb"], ["ccc"]]
    assert given[3] == ["dddd"]


def test_a_stream_depends_on_its_seed_and_the_step_it_begins_at() -> None:
    def first(seed: int, step: int) -> list[int]:
        return Stream(lambda _: range(1, 50), int, tokens=60, seed=seed)(step)

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(2, 0)
    assert first(1, 0) != first(1, 7)


@pytest.mark.parametrize("fill", [0, -100])
def test_rows_are_filled_up_on_the_right(fill: int) -> None:
    assert torch.equal(padded([[1], [2, 3]], fill), torch.tensor([[1, fill], [2, 3]]))
