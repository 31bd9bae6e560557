"""The signature all text graphs share, and the inputs they are compared on. Knows shapes and roles, no model."""

import numpy as np
import numpy.typing as npt

from model_store.export.draft import tensor
from model_store.manifest import State, Tensor
from model_store.zoo.sampler import TOP

Arrays = dict[str, npt.NDArray[np.generic]]

SAMPLED_INPUTS = (
    tensor("input_ids", "int64", "batch", "time"),
    tensor("select", "int64", "batch", "selected"),
    tensor("target", "int64", "batch", "selected"),
    tensor("temperature", "float32", "batch"),
    tensor("top_k", "int64", "batch"),
    tensor("top_p", "float32", "batch"),
    tensor("uniform", "float32", "batch"),
)
"""What every step is told: new tokens, which of them are followed by a choice, and how each row chooses."""


def sampled_outputs(vocabulary: int) -> tuple[Tensor, ...]:
    """What every step answers: chosen tokens and the most probable ones, with log-probabilities."""
    top = min(TOP, vocabulary)
    return (
        tensor("token", "int64", "batch", "selected"),
        tensor("logprob", "float32", "batch", "selected"),
        tensor("top_token", "int64", "batch", "selected", top),
        tensor("top_logprob", "float32", "batch", "selected", top),
    )


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
    rows = np.arange(batch)
    return {
        "input_ids": tokens,
        "select": select,
        "target": target,
        "temperature": (0.7 * np.minimum(rows, 2)).astype(np.float32),
        "top_k": np.where(rows % 3 == 1, 40, 0),
        "top_p": np.where(rows % 3 == 2, 0.9, 1).astype(np.float32),
        "uniform": generator.random(batch, np.float32),
    }
