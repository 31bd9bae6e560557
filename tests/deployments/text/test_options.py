"""What a request may ask of each token, through the program and the graph: penalties, bias, ends, grammars, choices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.messages import Grammar
from deployments.text.sequence import Constraint
from model_store.session import Array
from tests.deployments.text.driven import Driven, Reading

Open = Callable[..., Driven]
GRAMMAR = Grammar("choice", "[]")


@pytest.fixture(params=["text", "attention"])
def load(request: pytest.FixtureRequest, tiny: Path) -> Open:
    def load_one(variety: str = "tiny", **options: Any) -> Driven:
        return Driven(tiny, f"{variety}-{request.param}", **options)

    return load_one


class Spelled:
    """A hand-written grammar: these bytes in turn, each of a set, and no more."""

    def __init__(self, *sets: bytes) -> None:
        self.sets = sets
        self.place = 0
        self.done = False

    def fill(self, words: Array) -> bool:
        words[:] = 0
        for token in self.sets[self.place]:
            words.view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)
        return True

    def advance(self, token: int) -> bool:
        allowed = token in self.sets[self.place]
        self.place += 1
        self.done = self.place == len(self.sets)
        return allowed


def constrained(model: Driven, *sets: bytes) -> Driven:
    def constrain(_: Grammar) -> Callable[[], Constraint]:
        return lambda: Spelled(*sets)

    model.model.prompts._constrain = constrain
    return model


def finish(reading: Reading, row: int = 0) -> str | None:
    return reading.of(row)[-1].finish


# -- where a text ends -------------------------------------------------------------------------------------------------


async def test_an_end_may_be_ignored(load: Open) -> None:
    """The tiny model says token 0 from its sixth token on."""
    reading = await load("ending").alone("abc", max_tokens=6, ignore_eos=True)
    assert (reading.tokens(), finish(reading)) == ([100, 101, 102, 0, 0, 0], "length")


async def test_an_end_does_not_come_before_it_may(load: Open) -> None:
    reading = await load("ending").alone("abc", max_tokens=20, min_tokens=6)
    assert 0 not in reading.tokens()[:6]
    assert (reading.tokens()[6:], finish(reading)) == ([0], "stop")


async def test_tokens_that_stop_a_text_stop_it(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=20, stop_token_ids=(105, 107))
    assert (reading.text(), reading.tokens(), finish(reading)) == (
        "defgh",
        [100, 101, 102, 103, 104, 105],
        "stop",
    )


async def test_tokens_that_stop_a_text_stop_it_where_ends_are_ignored(load: Open) -> None:
    reading = await load("ending").alone("abc", max_tokens=20, stop_token_ids=(102,), ignore_eos=True)
    assert (reading.text(), finish(reading)) == ("de", "stop")


async def test_tokens_that_stop_a_text_are_not_said_before_they_may(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=8, min_tokens=3, stop_token_ids=(101,))
    assert 101 not in reading.tokens()[:3]
    assert len(reading.tokens()) > 3


async def test_stops_do_not_end_a_text_before_they_may(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=8, min_tokens=4, stop=("e", "h", "i"))
    assert (reading.text(), finish(reading)) == ("defg", "stop")


# -- penalties and bias ------------------------------------------------------------------------------------------------


async def test_a_ban_by_bias(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=3, logit_bias=((101, -100.0),))
    assert reading.tokens()[0] == 100
    assert 101 not in reading.tokens()


async def test_a_bias_chooses(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=3, logit_bias=((65, 100.0),))
    assert reading.text() == "AAA"


async def test_log_probabilities_are_the_model_s_own(load: Open) -> None:
    plain = await load().alone("abc", max_tokens=1, logprobs=5)
    biased = await load().alone("abc", max_tokens=1, logprobs=5, logit_bias=((65, 100.0), (100, -100.0)))
    assert biased.scores()[0].top == plain.scores()[0].top
    assert (biased.scores()[0].logprob or 0) < -5


PENALTIES: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "AAAA"),
    "little": ({"frequency_penalty": 1.0, "presence_penalty": 1.0}, "AAAA"),
    "once, however often": ({"presence_penalty": 30.0}, "ABAA"),
    "every time": ({"frequency_penalty": 30.0}, "ABAB"),
}


@pytest.mark.parametrize(("fields", "text"), PENALTIES.values(), ids=PENALTIES)
async def test_what_was_said_is_said_less(load: Open, fields: dict[str, Any], text: str) -> None:
    """Two tokens are far ahead of all others, and the first of the second."""
    reading = await load().alone("x", max_tokens=4, logit_bias=((65, 60.0), (66, 40.0)), **fields)
    assert reading.text() == text


async def test_what_was_said_is_not_repeated(load: Open) -> None:
    fields: dict[str, Any] = {"max_tokens": 2, "logit_bias": ((102, 9.0),)}
    assert (await load().alone("e", **fields)).text() == "ff"
    assert (await load().alone("e", **fields, repetition_penalty=100.0)).text() == "fg"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"repetition_penalty": 100.0}, "f"),
        ({"presence_penalty": 100.0}, "e"),
        ({"frequency_penalty": 100.0}, "e"),
    ],
)
async def test_only_repetition_looks_at_the_prompt(load: Open, fields: dict[str, Any], text: str) -> None:
    """The model wants to say "e" again, which the prompt has; its runner-up is another."""
    reading = await load().alone("ezd", max_tokens=1, **fields)
    assert (reading.text() == "e") is (text == "e")


async def test_rows_with_wishes_do_not_touch_rows_without(load: Open) -> None:
    model = load("loose")
    wishes: list[dict[str, Any]] = [
        {"logit_bias": ((65, 3.0), (66, -3.0))},
        {},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.5},
        {"temperature": 1.0, "top_k": 3},
        {"min_tokens": 4, "stop_token_ids": (70,)},
        {"grammar": GRAMMAR},
        {"temperature": 0.8},
        {"logit_bias": tuple((token, 1.0) for token in range(100))},
    ]
    constrained(model, *[b"ABCDEF"] * 7)
    fields: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "logprobs": 2, "seed": 4}
    together = [model.submit(f"abc{i}", **{**fields, **wish}) for i, wish in enumerate(wishes)]
    await model.finish()
    for i, wish in enumerate(wishes):
        alone = await constrained(load("loose"), *[b"ABCDEF"] * 7).alone(f"abc{i}", **{**fields, **wish})
        assert (alone.tokens(), alone.scores()) == (together[i].tokens(), together[i].scores())


# -- grammars ----------------------------------------------------------------------------------------------------------


async def test_a_grammar_says_what_may_come(load: Open) -> None:
    model = constrained(load(), b"{", b"xyz", b"}")
    reading = await model.alone("abc", max_tokens=20, grammar=GRAMMAR)
    assert (reading.text()[0], reading.text()[2], finish(reading)) == ("{", "}", "stop")
    assert reading.text()[1] in "xyz"


async def test_a_grammar_leaves_the_model_s_choice_where_it_may_choose(load: Open) -> None:
    reading = await constrained(load(), b"abcdefg", b"xyze").alone("abc", max_tokens=20, grammar=GRAMMAR)
    assert reading.text() == "de"


async def test_choices_are_constrained_each_on_its_own(load: Open) -> None:
    model = constrained(load("loose"), *[b"0123456789"] * 6)
    reading = await model.alone("abc", n=4, max_tokens=20, temperature=2.0, grammar=GRAMMAR)
    texts = [reading.text(row) for row in range(4)]
    assert all(len(text) == 6 and text.isdigit() for text in texts)
    assert len(set(texts)) > 1


async def test_a_grammar_and_a_bias_hold_together(load: Open) -> None:
    model = constrained(load(), b"xyz", b"xyz")
    bias = ((120, -50.0), (121, 20.0), (65, 100.0))
    reading = await model.alone("abc", max_tokens=20, grammar=GRAMMAR, logit_bias=bias)
    assert reading.text() == "yy"


async def test_a_constrained_row_may_be_cut_by_its_limit(load: Open) -> None:
    reading = await constrained(load(), *[b"x"] * 9).alone("abc", max_tokens=4, grammar=GRAMMAR)
    assert (reading.text(), finish(reading)) == ("xxxx", "length")


# -- several choices ---------------------------------------------------------------------------------------------------


async def test_the_best_of_several_are_computed_and_judged(load: Open) -> None:
    reading = await load("loose").alone("abc", n=2, best_of=4, max_tokens=8, temperature=1.5, logprobs=0)
    assert len(reading.rows) == 4
    for row in range(4):
        scores = [score.logprob or 0 for score in reading.scores(row)]
        work = reading.rows[row].work
        if len(scores) == len(work.generated):  # the end of a text has no figure of its own
            assert work.mean_logprob == pytest.approx(sum(scores) / len(scores), rel=1e-5)
    assert len({tuple(reading.tokens(row)) for row in range(4)}) > 1


async def test_greedy_choices_are_alike(load: Open) -> None:
    reading = await load().alone("abc", n=3, max_tokens=5)
    assert {reading.text(row) for row in range(3)} == {"defgh"}


async def test_min_p_keeps_what_is_nearly_as_likely(load: Open) -> None:
    """At this heat any token may come; with min_p only the one that is far ahead."""
    free = await load().alone("abc", max_tokens=30, temperature=5.0, seed=1)
    held = await load().alone("abc", max_tokens=5, temperature=5.0, seed=1, min_p=0.5)
    assert free.text()[:5] != "defgh"
    assert held.text() == "defgh"
