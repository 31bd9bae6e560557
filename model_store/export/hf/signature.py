"""Names, shapes and types of a decoder's `step` graph, and its state. Knows no files."""

from model_store.export import sampled
from model_store.export.draft import GraphDraft, tensor
from model_store.export.hf.adapted import INPUTS as ADAPTERS
from model_store.export.hf.job import Layers, past_names, present_names
from model_store.manifest import DType, State


def states(layers: Layers, dtype: DType) -> tuple[State, ...]:
    """One row's keys and values of every layer, written in place."""
    names = zip(past_names(len(layers)), present_names(len(layers)), strict=True)
    return tuple(
        State(past=past, present=present, shape=(kv_heads, "cache", head_dim), dtype=dtype, in_place=True)
        for (past, present), (kv_heads, head_dim) in zip(
            names, [each for each in layers for _ in range(2)], strict=True
        )
    )


def signature(layers: Layers, dtype: DType, *, adapters: bool = False) -> GraphDraft:
    """The `step` graph's signature; with `adapters` it takes which one each row wants."""
    own = (
        tensor("input_ids", "int64", "batch", "time"),
        tensor("select", "int64", "batch", "selected"),
        tensor("seqlens_k", "int32", "batch"),
        tensor("total_sequence_length", "int32"),
    )
    kept = states(layers, dtype)
    return GraphDraft(
        factory="transformers",
        inputs=(
            *own,
            *(ADAPTERS if adapters else ()),
            *sampled.INPUTS,
            *(tensor(each.past, each.dtype, "batch", *each.shape) for each in kept),
        ),
        outputs=(
            *sampled.OUTPUTS,
            *(tensor(each.present, each.dtype, "batch", *each.shape) for each in kept),
        ),
    )
