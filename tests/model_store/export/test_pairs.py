"""Encoders and decoders as one autoencoder: as modules, and as two graphs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_store.export.draft import GraphDraft, Pair, tensor
from model_store.export.errors import DraftError, GraphFailed
from model_store.export.pairs import both_graphs
from model_store.export.torch_graph import build, join_pair, named_outputs
from tests.model_store.export.modules import Autoencoder, Inferred

HERE = "tests.model_store.export.modules"
PICTURE = ("batch", 1, 8, 8)
GRAPH = GraphDraft(
    factory="a:Encoder",
    weights=Path("w"),
    method="reconstruct",
    inputs=(tensor("input", "float32", *PICTURE),),
    outputs=(tensor("reconstruction", "float32", *PICTURE), tensor("latent", "float32", "batch", 2, 3)),
    pair=Pair("b:Decoder"),
)


@pytest.mark.parametrize(
    "pair",
    [Pair("decode", "encode"), Pair(f"{HERE}:Decoder", "encode"), Pair("decode", "encode", latent=(4,))],
)
@torch.no_grad()
def test_two_halves_redraw(pair: Pair) -> None:
    pictures = torch.rand(3, 1, 8, 8)
    whole = Autoencoder()
    both = join_pair(build(f"{HERE}:Autoencoder"), pair)

    found = both.get_submodule("").reconstruct(pictures)  # type: ignore[operator]  # a module's own method

    assert torch.equal(found["latent"], whole.encode(pictures))
    assert torch.equal(found["reconstruction"], whole.decode(whole.encode(pictures)))
    assert torch.equal(both.decode(found["latent"]), found["reconstruction"])  # type: ignore[operator]


def test_a_decoder_has_weights_of_its_own(tmp_path: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in build(f"{HERE}:Decoder").state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    both = join_pair(Autoencoder(), Pair(f"{HERE}:Decoder", "encode", tmp_path / "w.pt"))
    assert torch.all(both.decode(torch.ones(1, 4)) == 0.5)  # type: ignore[operator]


def test_an_encoder_that_returns_more_than_a_latent_is_refused() -> None:
    both = join_pair(Autoencoder(), Pair("decode"))
    with pytest.raises(GraphFailed, match="the encoder returns 2 tensors"):
        both.reconstruct(torch.rand(1, 1, 8, 8))  # type: ignore[operator]


def test_latents_are_laid_flat() -> None:
    graphs = both_graphs(GRAPH)

    assert [each.shape for each in graphs["reconstruct"].outputs] == [PICTURE, ("batch", 6)]
    assert graphs["decode"].inputs[0].shape == ("batch", 6)
    assert (graphs["decode"].outputs[0].role, graphs["decode"].outputs[0].shape) == ("output", PICTURE)
    assert {each.pair for each in graphs.values()} == {Pair("b:Decoder", latent=(2, 3))}
    assert (graphs["decode"].factory, graphs["decode"].weights) == ("a:Encoder", Path("w"))


def test_a_latent_that_varies_is_refused() -> None:
    varies = replace(GRAPH, outputs=(GRAPH.outputs[0], tensor("latent", "float32", "batch", "time")))
    with pytest.raises(DraftError, match="of fixed size, not"):
        both_graphs(varies)


def test_a_named_tuple_names_its_outputs_and_leaves_out_what_is_not_given() -> None:
    score = torch.zeros(2)
    assert named_outputs(Inferred(pred_score=score), ()) == {"pred_score": score}
