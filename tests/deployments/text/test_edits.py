"""Edits of logits against what the options mean, written in plain numpy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.messages import Complete
from deployments.text.edits import BANNED, Edits
from model_store.session import Array

SIZE = 24
LOGITS = np.random.default_rng(0).normal(0, 3, SIZE).astype(np.float32)
tokens = st.lists(st.integers(0, SIZE - 1), max_size=30)


def request(**fields: Any) -> Complete:
    return Complete(model="m", prompts=("",), **fields)


def edits(asked: Complete, prompt: list[int], ends: tuple[int, ...] = ()) -> Edits:
    made = Edits.of(asked, prompt, ends)
    assert made is not None
    return made


def applied(made: Edits, room: int | None = None) -> Array:
    """What the graph makes of them, in rows of this length."""
    room = len(made) if room is None else room
    token, scale, add = np.full(room, 99), np.full(room, 9.0, np.float32), np.full(room, 9.0, np.float32)
    made.write(token, scale, add)
    old = LOGITS[token]
    result = LOGITS.copy()
    result[token] = np.where(old > 0, old / scale, old * scale) + add
    return result


def defined(asked: Complete, prompt: list[int], said: list[int], ends: tuple[int, ...]) -> Array:
    """Repetition looks at the prompt as well; presence and frequency at what was generated alone."""
    result = LOGITS.copy()
    for token in {*prompt, *said}:
        result[token] *= asked.repetition_penalty if result[token] < 0 else 1 / asked.repetition_penalty
    for token, bias in asked.logit_bias:
        result[token] += bias
    for token in set(said):
        result[token] -= asked.presence_penalty + asked.frequency_penalty * said.count(token)
    if len(said) < asked.min_tokens:
        result[list(ends)] = BANNED
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1},
        {"repetition_penalty": 1.0, "presence_penalty": 0.0, "stop": ("x",), "max_tokens": 3},
    ],
)
def test_who_wants_nothing_of_it_has_none(fields: dict[str, Any]) -> None:
    assert Edits.of(request(**fields), [1, 2, 3], (0,)) is None


asking = st.fixed_dictionaries(
    {
        "logit_bias": st.dictionaries(
            st.integers(0, SIZE - 1), st.floats(-100, 100, width=32), max_size=12
        ).map(lambda bias: tuple(bias.items())),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.5, 2.0]),
        "presence_penalty": st.sampled_from([0.0, 0.75, -2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.25, -1.0]),
        "min_tokens": st.integers(0, 6),
    }
).map(lambda fields: request(**fields))
some_ends = st.sets(st.integers(0, SIZE - 1), min_size=1, max_size=3)


@given(asked=asking, prompt=tokens, said=tokens, ends=some_ends, room=st.integers(0, 20))
def test_edits_are_what_the_options_mean(
    asked: Complete, prompt: list[int], said: list[int], ends: set[int], room: int
) -> None:
    made = Edits.of(asked, prompt, tuple(ends))
    early = [token for token in said if token not in ends][: asked.min_tokens]  # what is banned is not said
    said = early + (said if len(early) == asked.min_tokens else [])
    if made is None:
        assert (defined(asked, prompt, said, tuple(ends)) == LOGITS).all()
        return
    for count, token in enumerate(said, 1):
        expected = defined(asked, prompt, said[: count - 1], tuple(ends))
        np.testing.assert_allclose(applied(made, len(made) + room), expected, rtol=1e-5, atol=1e-4)
        made.push(token, count)
    np.testing.assert_allclose(
        applied(made, len(made) + room), defined(asked, prompt, said, tuple(ends)), rtol=1e-5, atol=1e-4
    )


def test_a_prompt_is_no_repetition_to_presence_and_frequency() -> None:
    made = edits(request(presence_penalty=1.0, frequency_penalty=0.5), [3, 3, 3])
    assert len(made) == 0
    made.push(3, 1)
    assert applied(made)[3] == LOGITS[3] - np.float32(1.5)
    made.push(3, 2)
    assert applied(made)[3] == LOGITS[3] - np.float32(2.0)


def test_a_long_prompt_has_room() -> None:
    made = edits(request(repetition_penalty=2.0), list(range(SIZE)) * 5)
    assert len(made) == SIZE
    assert (np.abs(applied(made) - np.where(LOGITS > 0, LOGITS / 2, LOGITS * 2)) < 1e-6).all()


def test_ends_are_banned_until_enough_was_said() -> None:
    made = edits(request(min_tokens=2, logit_bias=((0, 5.0),)), [], (0, 7))
    for count in (1, 2):
        assert applied(made)[[0, 7]].tolist() == pytest.approx([BANNED, BANNED])
        made.push(3, count)
    assert applied(made)[[0, 7]].tolist() == pytest.approx([LOGITS[0] + 5, LOGITS[7]])


def test_a_bias_on_many_tokens_makes_room_before_it_is_written() -> None:
    bias = tuple((token, float(token)) for token in range(SIZE))
    np.testing.assert_allclose(
        applied(edits(request(logit_bias=bias), [])), LOGITS + np.arange(SIZE), rtol=1e-6
    )


def test_a_token_biased_twice_gets_both() -> None:
    made = edits(request(logit_bias=((3, 1.0), (3, 2.0))), [])
    assert (len(made), applied(made)[3]) == (1, LOGITS[3] + np.float32(3))


def test_a_row_without_edits_yet_changes_nothing() -> None:
    made = edits(request(presence_penalty=1.0), [1, 2])
    assert (applied(made, 16) == LOGITS).all()
