"""The `step` graph of a decoder Transformer: its signature, its state, and the inputs it is compared on. Knows no weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from model_store.export.draft import GraphDraft, tensor
from model_store.manifest import State, Tensor
from model_store.zoo.text_graph import (
    SAMPLED_INPUTS,
    SAMPLED_OUTPUTS,
    Arrays,
    sampled_case,
    state_inputs,
    state_outputs,
)
from model_store.zoo.transformer import Config

LENGTHS: Final = (tensor("seqlens_k", "int32", "batch"), tensor("total_sequence_length", "int32"))


def states(config: Config) -> tuple[State, ...]:
    """One row's keys and values of every layer, written in place."""
    shape: tuple[int | Literal["cache"], ...] = (config.kv_heads, "cache", config.head_dim)
    return tuple(
        State(
            past=f"past_key_values.{layer}.{part}",
            present=f"present.{layer}.{part}",
            shape=shape,
            in_place=True,
        )
        for layer in range(config.layers)
        for part in ("key", "value")
    )


def inputs(config: Config, *between: Tensor) -> tuple[Tensor, ...]:
    """What the step takes, with `between` the lengths and the state."""
    return (*SAMPLED_INPUTS, *LENGTHS, *between, *state_inputs(states(config)))


def outputs(config: Config) -> tuple[Tensor, ...]:
    """What the step answers."""
    return (*SAMPLED_OUTPUTS, *state_outputs(states(config)))


def step(
    recipe: str, weights: Path, config: Config, *, stored: Literal["float32", "float16"] = "float32"
) -> GraphDraft:
    """The `step` graph of the module `recipe`, which has a `step_module` and `cases`."""
    return GraphDraft(
        factory=f"{recipe}:step_module",
        weights=weights,
        inputs=inputs(config),
        outputs=outputs(config),
        cases=f"{recipe}:cases",
        sampled=True,
        stored=stored,
    )


def cases(config: Config) -> list[Arrays]:
    """The start of a prompt, a scored middle of one, its end, and the next token of three rows of different lengths."""
    generator = np.random.default_rng(0)
    full = config.context
    return [
        case(generator, config, (3,), time=3, cache=8),
        case(generator, config, (full // 4,), time=7, forced=True),
        case(generator, config, (full,), time=full // 2),
        case(generator, config, (4, full, full // 3), time=1),
    ]


def case(
    generator: np.random.Generator,
    config: Config,
    lengths: Sequence[int],
    *,
    time: int,
    forced: bool = False,
    cache: int | None = None,
) -> Arrays:
    """Rows of these `lengths`, of which `time` tokens are new and the rest is random, in a cache of `cache` places."""
    made = sampled_case(generator, config.vocabulary, len(lengths), time, forced=forced)
    made["seqlens_k"] = np.array(lengths, np.int32) - 1
    made["total_sequence_length"] = np.array(max(lengths), np.int32)
    for state in states(config):
        past = np.zeros((len(lengths), config.kv_heads, cache or config.context, config.head_dim), np.float32)
        for row, length in enumerate(lengths):
            filled = (config.kv_heads, length - time, config.head_dim)
            past[row, :, : length - time] = generator.standard_normal(filled, np.float32)
        made[state.past] = past
    return made
