"""The signature all text graphs share, and the inputs they are compared on. Knows shapes and roles, no model."""

import numpy as np
import numpy.typing as npt

from model_store.export import sampled
from model_store.export.draft import tensor
from model_store.manifest import State, Tensor

Arrays = dict[str, npt.NDArray[np.generic]]

SAMPLED_INPUTS = (
    tensor("input_ids", "int64", "batch", "time"),
    tensor("select", "int64", "batch", "selected"),
    *sampled.INPUTS,
)
"""What every step is told: new tokens, which of them are followed by a choice, and how each row chooses."""

SAMPLED_OUTPUTS = sampled.OUTPUTS
"""What every step answers: chosen tokens and the most probable ones, with log-probabilities."""


def state_inputs(states: tuple[State, ...]) -> tuple[Tensor, ...]:
    """The state before the step, a leading batch dimension added."""
    return tuple(tensor(state.past, state.dtype, "batch", *state.shape) for state in states)


def state_outputs(states: tuple[State, ...]) -> tuple[Tensor, ...]:
    """The state after the step."""
    return tuple(tensor(state.present, state.dtype, "batch", *state.shape) for state in states)


def sampled_case(
    generator: np.random.Generator, vocabulary: int, batch: int, time: int, *, forced: bool
) -> Arrays:
    """Random tokens. `forced`: every position is scored against the token that follows, and the last one chooses.

    Otherwise only the last position chooses. Rows differ in temperature and filters; the first is greedy.
    """
    tokens = generator.integers(0, vocabulary, (batch, time))
    select = np.tile(np.arange(time), (batch, 1)) if forced else np.full((batch, 1), time - 1)
    target = np.full(select.shape, -1)
    if forced:
        target[:, :-1] = tokens[:, 1:]
    logits = np.zeros((*select.shape, vocabulary))
    return {
        **sampled.controls(logits, int(generator.integers(2**31))),
        "input_ids": tokens,
        "select": select,
        "target": target,
    }
