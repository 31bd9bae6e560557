"""What the sampler takes, gives and means: its tensors, and the same choice written in numpy, for parity and tests.

Knows logits and one random number per row; no model, no state, no random generator of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_store.export.draft import GraphDraft, tensor

Array = npt.NDArray[Any]

TOP: Final = 20
"""The most alternatives a request may ask for."""

HEAD: Final = 128
"""How many of the most probable tokens are tried before the whole vocabulary: whoever shares the batch, the same number."""

COLDEST: Final = 1e-4
"""Temperatures between 0 and this count as this: colder ones would overflow and choose the same token."""

MASKED: Final = -1e30
"""The logit of a token that a grammar forbids."""

INPUTS: Final = (
    tensor("target", "int64", "batch", "selected"),
    tensor("temperature", "float32", "batch"),
    tensor("top_k", "int64", "batch"),
    tensor("top_p", "float32", "batch"),
    tensor("min_p", "float32", "batch"),
    tensor("uniform", "float32", "batch"),
    tensor("edit_token", "int64", "batch", "edits"),
    tensor("edit_scale", "float32", "batch", "edits"),
    tensor("edit_add", "float32", "batch", "edits"),
    tensor("mask_row", "int64", "masked"),
    tensor("mask", "int32", "masked", "words"),
    tensor("candidates", "int64", "candidates"),
    tensor("alternatives", "int64", "alternatives"),
)
"""How each row chooses.

`target`: a token whose log-probability is wanted, or -1 to choose one, at a row's last selected position only.
`temperature` 0 is greedy: the most probable token, of equals the lowest id. `top_k` 0, `top_p` 1 and `min_p` 0 are off; top_k applies
first, then top_p to what is left, renormalised, then min_p, a share of the most probable token's weight. `uniform` in [0, 1) is
the row's random number: the same number and logits give the same token, whatever else is in the batch.
An edit makes a logit `(logit / scale if logit > 0 else logit * scale) + add`: all of a row's edits that name one token must be equal.
Bit j of word i of a `mask` row says whether batch row `mask_row` may take token 32 i + j.
Of `candidates` and `alternatives` only the sizes count: how many of the most probable tokens are sorted, which must be
at least 1, every row's top_k, and HEAD (or the vocabulary) if a row samples without top_k; and how many are reported.
"""

OUTPUTS: Final = (
    tensor("token", "int64", "batch", "selected"),
    tensor("logprob", "float32", "batch", "selected"),
    tensor("top_logprob", "float32", "batch", "selected", "alternatives"),
    tensor("top_token", "int64", "batch", "selected", "alternatives"),
)
"""Log-probabilities are the model's own: before edits, masks, temperature and filters."""


def unsampled(graph: GraphDraft, vocabulary: int | str = "vocabulary") -> GraphDraft:
    """The same graph without the sampler: what the module itself takes and returns."""
    chosen = {each.name for each in INPUTS}
    made = {each.name for each in OUTPUTS}
    logits = tensor("logits", "float32", "batch", "selected", vocabulary)
    return replace(
        graph,
        inputs=tuple(each for each in graph.inputs if each.name not in chosen),
        outputs=(logits, *(each for each in graph.outputs if each.name not in made)),
        sampled=False,
    )


def controls(logits: Array, seed: int) -> dict[str, Array]:
    """Inputs to compare a sampler by, for logits [batch, selected, vocabulary]: the last position of each row chooses.

    Rows differ in temperature and filters; the first is greedy.
    """
    batch, selected, vocabulary = logits.shape
    rows = np.arange(batch)
    words = -(-vocabulary // 32)
    target = np.zeros((batch, selected), np.int64)
    target[:, -1] = -1
    return {
        "target": target,
        "temperature": (0.7 * np.minimum(rows, 2)).astype(np.float32),
        "top_k": np.where(rows % 3 == 1, min(40, vocabulary), 0),
        "top_p": np.where(rows % 3 == 2, 0.9, 1).astype(np.float32),
        "min_p": np.where(rows % 4 == 3, 0.02, 0).astype(np.float32),
        "uniform": np.asarray(np.random.default_rng(seed).random(batch, np.float32)),
        "edit_token": np.tile(np.arange(min(2, vocabulary)), (batch, 1)),
        "edit_scale": np.full((batch, min(2, vocabulary)), 1.2, np.float32),
        "edit_add": np.full((batch, min(2, vocabulary)), -0.5, np.float32),
        "mask_row": np.arange(1),
        "mask": np.full((1, words), -2, np.int32),  # all but the first token of each word
        "candidates": np.zeros(min(HEAD, vocabulary), np.int64),
        "alternatives": np.zeros(min(TOP, vocabulary), np.int64),
    }


def sample(logits: Array, controls: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs for logits f32 [batch, selected, vocabulary] and the inputs by name."""
    logprobs = _log_softmax(logits.astype(np.float64))
    edited = _edited(logits[:, -1].astype(np.float32), controls)
    chosen = [_choose(row, place, controls) for place, row in enumerate(edited)]
    target = controls["target"]
    token = np.where(target >= 0, target, np.array(chosen, np.int64)[:, None])
    order = np.argsort(-logits, axis=-1, kind="stable")[..., : controls["alternatives"].shape[0]]
    return {
        "token": token,
        "logprob": np.take_along_axis(logprobs, token[..., None], -1)[..., 0].astype(np.float32),
        "top_logprob": np.take_along_axis(logprobs, order, -1).astype(np.float32),
        "top_token": order,
    }


def _log_softmax(logits: Array) -> Array:
    moved = logits - logits.max(-1, keepdims=True)
    result: Array = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
    return result


def _edited(logits: Array, controls: Mapping[str, Array]) -> Array:
    rows, tokens = np.arange(len(logits))[:, None], controls["edit_token"]
    old, scale = logits[rows, tokens], controls["edit_scale"]
    logits[rows, tokens] = np.where(old > 0, old / scale, old * scale) + controls["edit_add"]
    bits = (controls["mask"].view(np.uint32)[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    allowed = bits.reshape(len(bits), 32 * bits.shape[1])[:, : logits.shape[1]].astype(bool)
    masked = controls["mask_row"]
    logits[masked] = np.where(allowed, logits[masked], np.float32(MASKED))
    return logits


def _choose(logits: Array, row: int, controls: Mapping[str, Array]) -> int:
    """One row's token. Where few tokens hold what is kept they are gone through by rank, else by id."""
    temperature, top_k, top_p, min_p, uniform = (
        controls[name][row].item() for name in ("temperature", "top_k", "top_p", "min_p", "uniform")
    )
    order = np.argsort(-logits, kind="stable")
    if temperature == 0:
        return int(order[0])
    weight = np.exp((logits.astype(np.float64) - logits.max()) / max(temperature, COLDEST))
    ranked = weight[order[: top_k or None]]
    before = np.cumsum(ranked) - ranked
    kept = (before < top_p * ranked.sum()) & (ranked >= min_p)
    kept[0] = True
    tokens = order[: len(ranked)][kept]
    head = min(HEAD, len(ranked)) - 1
    if not (top_k or np.cumsum(ranked)[head] >= top_p * ranked.sum() or ranked[head] < min_p):
        tokens = np.sort(tokens)
    reached = np.cumsum(weight[tokens])
    return int(tokens[min(np.searchsorted(reached, uniform * reached[-1], "right"), len(tokens) - 1)])
