"""The graphs of an encoder and its decoder. Knows no torch."""

import math
from dataclasses import replace

from model_store.export.draft import GraphDraft, tensor
from model_store.export.errors import DraftError


def both_graphs(graph: GraphDraft) -> dict[str, GraphDraft]:
    """`reconstruct`, as it was run once, with its latent laid flat, and `decode`. Raises DraftError for a latent that varies in size."""
    by_role = {each.role: each for each in graph.outputs}
    row = by_role["latent"].shape[1:]
    if graph.pair is None or not row or not all(isinstance(size, int) for size in row):
        raise DraftError(f"a latent is [batch, ...] of fixed size, not {list(by_role['latent'].shape)}")
    shape = tuple(int(size) for size in row)
    pair, latent = replace(graph.pair, latent=shape), tensor("latent", "float32", "batch", math.prod(shape))
    outputs = tuple(latent if each.role == "latent" else each for each in graph.outputs)
    decode = GraphDraft(
        factory=graph.factory,
        weights=graph.weights,
        method="decode",
        inputs=(latent,),
        outputs=(tensor("output", "float32", *by_role["reconstruction"].shape),),
        pair=pair,
    )
    return {"reconstruct": replace(graph, outputs=outputs, pair=pair), "decode": decode}
