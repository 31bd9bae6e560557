"""What the graph is told of each row: sizes of inputs, padding, and rows that want nothing beside rows that do."""

from typing import Any

import numpy as np
import pytest

from deployments.messages import Complete
from deployments.text.controls import ALTERNATIVES, HEAD, Answers, Controls, Shape
from deployments.text.sequence import Chosen, Sequence
from deployments.text.vocabulary import Vocabulary
from model_store.export.hf.adapted import INPUTS as ADAPTERS
from model_store.export.sampled import INPUTS
from model_store.session import Array
from tests.packages import byte_tokenizer

VOCABULARY = Vocabulary(byte_tokenizer().to_str().encode(), 256)


class Only:
    """A constraint that allows one token."""

    done = False

    def __init__(self, token: int) -> None:
        self.token = token

    def fill(self, words: Array) -> bool:
        words[:] = 0
        words.view(np.uint32)[self.token // 32] = 1 << (self.token % 32)
        return True

    def advance(self, token: int) -> bool:
        return token == self.token


def work(
    prompt: tuple[int, ...] = (1, 2), only: int | None = None, adapter: int = 0, **fields: Any
) -> Sequence:
    request = Complete(model="m", prompts=(prompt,), **{"temperature": 0.0, **fields})
    constraint = None if only is None else Only(only)
    return Sequence(
        request, 0, prompt, VOCABULARY, frozenset({0}), limit=10, adapter=adapter, constraint=constraint
    )


def filled(*rows: Sequence | None, controls: Controls | None = None) -> tuple[Shape, dict[str, Array]]:
    controls = controls or Controls(4, 256)
    for slot, row in enumerate(rows):
        if row is not None:
            controls.admit(slot, row)
    shape = controls.fill(rows)
    return shape, controls.inputs(shape)


def test_the_inputs_are_the_sampler_s() -> None:
    _, inputs = filled(work(), work())
    assert inputs.keys() == {tensor.name for tensor in (*INPUTS, *ADAPTERS)} | {"select"}
    for tensor in (*INPUTS, *ADAPTERS):
        array = inputs[tensor.name]
        assert (array.dtype, array.ndim) == (np.dtype(tensor.dtype), len(tensor.shape)), tensor.name
        assert array.flags.c_contiguous
        if tensor.shape[0] == "batch":
            assert len(array) == 2


def test_who_wants_nothing_pays_for_nothing() -> None:
    shape, inputs = filled(work(), work())
    assert shape == Shape(2, 0, False, 1, 0)
    wide = ("edit_token", "mask", "mask_row", "alternatives", "adapter", "adapter_row")
    assert [inputs[name].size for name in wide] == [0, 0, 0, 0, 0, 0]
    assert inputs["target"].tolist() == [[-1], [-1]]


def test_where_one_row_has_an_adapter_all_say_which() -> None:
    controls = Controls(4, 256)
    shape, inputs = filled(work(adapter=2), work(), work(adapter=1), controls=controls)
    assert shape == Shape(3, adapted=True)
    assert (inputs["adapter"].tolist(), inputs["adapter_row"].tolist()) == ([2, 0, 1], [0, 1, 2])
    controls.move(2, 0)
    _, inputs = filled(None, work(), controls=controls)
    assert inputs["adapter"].size == 0
    assert controls.adapter.tolist() == [1, 0, 1, 0]


def test_a_prompt_s_run_has_the_adapters_of_its_own_slots() -> None:
    controls = Controls(4, 256)
    filled(work(), work(), work(adapter=1), controls=controls)
    found = [
        controls.plain(first, np.zeros((count, 1)), np.zeros((count, 1)), 0)
        for first, count in ((0, 2), (1, 2))
    ]
    assert [each["adapter"].tolist() for each in found] == [[], [0, 1]]
    assert [each["adapter_row"].tolist() for each in found] == [[], [0, 1]]


def test_parameters_are_the_request_s() -> None:
    _, inputs = filled(work(), work(temperature=0.7, top_k=40, top_p=0.9, min_p=0.05))
    assert inputs["temperature"].tolist() == [0, np.float32(0.7)]
    assert inputs["top_k"].tolist() == [0, 40]
    assert inputs["top_p"].tolist() == [1, np.float32(0.9)]
    assert inputs["min_p"].tolist() == [0, np.float32(0.05)]


@pytest.mark.parametrize(
    ("top_k", "temperature", "candidates"),
    [
        (0, 0.0, 1),
        (50, 0.0, 1),
        (1, 1.0, 1),
        (2, 1.0, 16),
        (16, 1.0, 16),
        (17, 1.0, 64),
        (0, 1.0, 256),
        (10**6, 1.0, 256),
    ],
)
def test_candidates_are_as_many_as_a_row_needs(top_k: int, temperature: float, candidates: int) -> None:
    shape, inputs = filled(work(), work(top_k=top_k, temperature=temperature))
    assert shape.candidates == len(inputs["candidates"]) == candidates
    assert candidates >= (min(top_k, 256) or HEAD if temperature else 1)
    assert inputs["top_k"][1] <= 256


def test_a_small_vocabulary_bounds_all_sizes() -> None:
    controls = Controls(2, 10)
    shape, _ = filled(work(temperature=1.0, logprobs=5, logit_bias=((1, 1.0),)), controls=controls)
    assert shape == Shape(1, 10, False, 10, 10)


@pytest.mark.parametrize(
    ("wanted", "alternatives"), [(None, 0), (0, 0), (1, ALTERNATIVES), (20, ALTERNATIVES)]
)
def test_alternatives_are_none_or_all_that_may_be_asked_for(wanted: int | None, alternatives: int) -> None:
    assert filled(work(), work(logprobs=wanted))[0].alternatives == alternatives


@pytest.mark.parametrize(("count", "size"), [(1, 16), (16, 16), (17, 64), (65, 256), (256, 256)])
def test_edits_come_in_few_sizes(count: int, size: int) -> None:
    bias = tuple((token, 1.0) for token in range(count))
    shape, inputs = filled(work(), work(logit_bias=bias))
    assert (shape.edits, inputs["edit_token"].shape) == (size, (2, size))


def test_rows_without_edits_are_left_alone_beside_rows_with_them() -> None:
    controls = Controls(4, 256)
    biased = work(logit_bias=((5, 2.0), (7, -3.0)), repetition_penalty=2.0)
    filled(biased, biased, controls=controls)
    shape, inputs = filled(work(), biased, None, controls=controls)  # arrays hold what other rows had
    assert shape.rows == 3
    for row in (0, 2):
        assert (inputs["edit_scale"][row] == 1).all()
        assert (inputs["edit_add"][row] == 0).all()
    edits = {(t, s, a) for t, s, a in zip(*(inputs[f"edit_{key}"][1].tolist() for key in ("token", "scale", "add")), strict=True)}  # fmt: skip
    assert edits == {(5, 1.0, 2.0), (7, 1.0, -3.0), (1, 2.0, 0.0), (2, 2.0, 0.0)}


def test_edits_that_name_one_token_are_equal() -> None:
    """As the graph wants it: padding repeats an edit and never says otherwise of a token."""
    _, inputs = filled(work(logit_bias=((5, 2.0),)), work(prompt=tuple(range(20)), repetition_penalty=1.5))
    for token, scale, add in zip(inputs["edit_token"], inputs["edit_scale"], inputs["edit_add"], strict=True):
        seen: dict[int, tuple[float, float]] = {}
        for each, s, a in zip(token.tolist(), scale.tolist(), add.tolist(), strict=True):
            assert seen.setdefault(each, (s, a)) == (s, a)


def test_rows_without_a_grammar_may_say_anything_beside_rows_with_one() -> None:
    controls = Controls(4, 256)
    filled(work(only=65), work(only=66), controls=controls)
    shape, inputs = filled(work(), work(only=70), None, controls=controls)
    assert shape.masked
    assert inputs["mask_row"].tolist() == [0, 1, 2]
    assert inputs["mask"].shape == (3, 8)
    bits = np.unpackbits(inputs["mask"].view(np.uint8), axis=1, bitorder="little")
    assert bits[[0, 2]].all()
    assert np.flatnonzero(bits[1]).tolist() == [70]


def test_every_active_row_draws_a_number_for_every_token() -> None:
    rows = [work(seed=seed, temperature=1.0) for seed in (1, 2)]
    controls = Controls(2, 256)
    drawn = [filled(*rows, controls=controls)[1]["uniform"].tolist() for _ in range(3)]
    again = [work(seed=seed, temperature=1.0) for seed in (1, 2)]
    first = filled(again[0], None, controls=Controls(2, 256))[1]["uniform"][0]
    assert first == drawn[0][0]
    both = filled(again[0], again[1], controls=Controls(2, 256))[1]["uniform"].tolist()
    assert both == [drawn[1][0], drawn[0][1]]  # the row that sat out draws its first only now


def test_a_row_takes_its_parameters_along() -> None:
    controls = Controls(4, 256)
    filled(work(), work(), work(temperature=0.5, top_k=3, top_p=0.8, min_p=0.2), controls=controls)
    controls.move(2, 0)
    shape = controls.fill([work()])
    inputs = controls.inputs(shape)
    assert shape.candidates == 16
    assert [inputs[name][0].item() for name in ("temperature", "top_k", "top_p", "min_p")] == pytest.approx(
        [0.5, 3, 0.8, 0.2]
    )


def test_a_run_that_chooses_nothing_is_plain_whatever_its_rows_want() -> None:
    controls = Controls(2, 256)
    filled(work(temperature=1.0, top_k=40, logit_bias=((1, 1.0),), only=3), controls=controls)
    select, target = np.arange(3)[None], np.array([[4, 5, 6]])
    inputs = controls.plain(1, select, target, 20)
    assert inputs["temperature"].tolist() == [0]
    assert [inputs[name].size for name in ("candidates", "alternatives", "edit_token", "mask")] == [
        1,
        20,
        0,
        0,
    ]
    assert inputs["select"] is select
    assert inputs["target"] is target


def test_inputs_of_one_shape_are_the_same_memory() -> None:
    """Bindings are kept by shape and read what later fills write."""
    controls = Controls(2, 256)
    first = filled(work(temperature=1.0, logit_bias=((1, 1.0),), only=3), controls=controls)
    second = filled(work(temperature=0.5, logit_bias=((2, 1.0),), only=4), controls=controls)
    assert first[0] == second[0]
    for name, array in first[1].items():
        assert (array == second[1][name]).all(), name


def test_answers_are_read_where_they_were_bound() -> None:
    answers = Answers(3, 2)
    outputs = answers.outputs(2, 4)
    assert {name: array.shape for name, array in outputs.items()} == {
        "token": (2, 2),
        "logprob": (2, 2),
        "top_token": (2, 2, 4),
        "top_logprob": (2, 2, 4),
    }
    outputs["token"][1, 1], outputs["logprob"][1, 1] = 9, -0.5
    outputs["top_token"][1, 1], outputs["top_logprob"][1, 1] = [9, 8, 7, 6], [-0.5, -1, -2, -3]
    assert answers.chosen(1, 1, 4, None) == answers.chosen(1, 1, 4, 0) == Chosen(9, -0.5)
    assert answers.chosen(1, 1, 4, 2) == Chosen(9, -0.5, ((9, -0.5), (8, -1.0)))
