"""A Transformer of 51 M random weights: large enough that a step's time is its weights' way through memory.

The shipped models fit into a core's caches, where a batch saves little; this one does not.
"""

import tempfile
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from model_store.export.draft import Draft
from model_store.export.publish import publish
from model_store.manifest import Provenance, Text
from model_store.zoo import text, transformer_graph
from model_store.zoo.text_graph import Arrays
from model_store.zoo.transformer import Config, Step

NAME: Final = "large-random"
SIZES: Final = Config(layers=8, width=768, heads=12, kv_heads=4, hidden=3072)
_NONE: Final = "none: random weights"


def step_module() -> Step:
    """The module, with random weights."""
    torch.manual_seed(0)
    step = Step(SIZES)
    # Small logits, as a trained model's: tied embeddings of this width would always repeat the last token.
    torch.nn.init.normal_(step.model.embedding.weight, std=0.005)
    return step


def cases() -> list[Arrays]:
    """Inputs to compare at."""
    return transformer_graph.cases(SIZES)


def package(store: Path) -> None:
    """Export it into a store; takes about a minute."""
    with tempfile.TemporaryDirectory() as work:
        weights = Path(work) / "large.safetensors"
        save_file(step_module().state_dict(), weights)
        draft = Draft(
            name=NAME,
            task="text-generation",
            family="transformer",
            capabilities=("complete",),
            description="Random weights, for benchmarks.",
            licence=_NONE,
            provenance=Provenance(
                data=_NONE, data_licence=_NONE, attribution=_NONE, home=_NONE, recipe=_NONE
            ),
            graphs={"step": transformer_graph.step(__name__, weights, SIZES)},
            files={"tokenizer.json": text.byte_tokenizer().to_str().encode()},
            text=Text(
                tokenizer="tokenizer.json",
                vocabulary=SIZES.vocabulary,
                context=SIZES.context,
                state=transformer_graph.states(SIZES),
                attention=True,
            ),
        )
        publish(draft, str(store))
