import numpy as np
import pytest

from model_store.export.cases import bind
from model_store.manifest import State
from model_store.zoo.text_graph import (
    SAMPLED_INPUTS,
    SAMPLED_OUTPUTS,
    sampled_case,
    state_inputs,
    state_outputs,
)

STATES = (
    State(past="past.h", present="present.h", shape=(2, 8)),
    State(past="past.c", present="present.c", shape=(2, 8)),
)


def test_the_roles_are_the_names_every_program_knows() -> None:
    assert [each.role for each in SAMPLED_INPUTS][:4] == ["input_ids", "select", "target", "temperature"]
    assert [each.role for each in SAMPLED_OUTPUTS] == ["token", "logprob", "top_logprob", "top_token"]


def test_states_get_a_batch_dimension() -> None:
    assert [(each.name, each.shape) for each in state_inputs(STATES)] == [
        ("past.h", ("batch", 2, 8)),
        ("past.c", ("batch", 2, 8)),
    ]
    assert [each.name for each in state_outputs(STATES)] == ["present.h", "present.c"]


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_cases_fit_the_signature(batch: int, *, forced: bool) -> None:
    case = sampled_case(np.random.default_rng(0), 50, batch, 6, forced=forced)
    sizes = bind(SAMPLED_INPUTS, case)
    assert (sizes["batch"], sizes["time"], sizes["selected"]) == (batch, 6, 6 if forced else 1)


def test_a_forced_case_scores_what_follows_and_then_chooses() -> None:
    case = sampled_case(np.random.default_rng(0), 50, 1, 6, forced=True)
    assert case["target"][0].tolist() == [*case["input_ids"][0, 1:].tolist(), -1]
    assert case["select"][0].tolist() == list(range(6))


def test_the_rows_of_a_case_sample_in_different_ways() -> None:
    case = sampled_case(np.random.default_rng(0), 50, 3, 1, forced=False)
    rows = list(
        zip(case["temperature"].tolist(), case["top_k"].tolist(), case["top_p"].tolist(), strict=True)
    )
    assert rows[0] == (0, 0, 1)
    assert len(set(rows)) == 3
