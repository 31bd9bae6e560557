import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.zoo.ngram import ALPHABET, witten_bell


def test_nothing_known_is_the_uniform_distribution() -> None:
    assert witten_bell("", "abc", 3) == pytest.approx(math.log(ALPHABET))


def test_one_character_mixes_its_share_with_the_uniform_one() -> None:
    # Three `a` and one `b`: two kinds in four, so a third goes to the uniform distribution.
    probability = (3 + 2 / ALPHABET) / (4 + 2)
    assert witten_bell("aaab", "a", 1) == pytest.approx(-math.log(probability))


def test_a_context_is_interpolated_with_the_shorter_one() -> None:
    unigram = (2 + 2 / ALPHABET) / (4 + 2)  # `b` in `abab`
    bigram = (2 + 1 * unigram) / (2 + 1)  # after `a`, seen twice, always `b`
    first = (2 + 2 / ALPHABET) / (4 + 2)  # `a` at the start has no context
    assert witten_bell("abab", "ab", 2) == pytest.approx(-(math.log(first) + math.log(bigram)) / 2)


def test_longer_contexts_help_where_the_text_repeats() -> None:
    text = "to be or not to be, " * 20
    assert witten_bell(text, text, 5) < witten_bell(text, text, 2) < witten_bell(text, text, 1)


@given(st.text("ab", min_size=1, max_size=30), st.text("ab", max_size=5), st.integers(1, 4))
def test_the_next_characters_probabilities_sum_to_one(train: str, before: str, order: int) -> None:
    def nats(text: str) -> float:
        return witten_bell(train, text, order) * len(text) if text else 0.0

    known = sum(math.exp(nats(before) - nats(before + character)) for character in "ab")
    unknown = math.exp(nats(before) - nats(before + "z")) * (ALPHABET - 2)
    assert known + unknown == pytest.approx(1)
