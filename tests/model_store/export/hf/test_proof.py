"""The comparison sees what is wrong: a logit, a token, a row that looks at another, a graph that does not run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model_store.errors import RunFailed
from model_store.export.errors import ParityError
from model_store.export.hf.exported import Exported
from model_store.export.hf.job import Reference
from model_store.export.hf.proof import LIMIT, compare_greedy, prove
from model_store.export.hf.rows import Array, Bound
from model_store.export.parity import Figure
from tests.model_store.export.hf.conftest import Llama


def test_a_right_graph_passes_with_its_figures(llama: Llama) -> None:
    figures: list[Figure] = []

    prove(llama.graph.open(), llama.report, llama.references, figures.append)

    assert [each.output for each in figures] == [
        "logits, ragged prompts", "logits, ragged steps", "logits, prompt in chunks", "greedy tokens, 3 rows",
    ]  # fmt: skip
    assert [each.cases for each in figures] == [3, 3, 1, 48]
    assert all(each.error < 1e-4 for each in figures)


def changed(llama: Llama, folder: Path, operator: str, **attributes: int) -> Exported:
    """The graph with other attributes."""
    model = ir.load(llama.graph.path)
    for node in model.graph:
        if node.op_type == operator:
            for name, value in attributes.items():
                node.attributes[name] = ir.AttrInt64(name, value)
    ir.save(model, folder / "changed.onnx")
    return Exported(folder / "changed.onnx")


@pytest.mark.parametrize(
    "attributes", [{"local_window_size": 16}, {"rotary_interleaved": 1}], ids=["window", "rotation"]
)
def test_another_attention_is_seen(attributes: Mapping[str, int], llama: Llama, tmp_path: Path) -> None:
    graph = changed(llama, tmp_path, "GroupQueryAttention", **attributes)

    with pytest.raises(ParityError, match=r"logits, .*: row \d, token \d+: the graph's logit of \d+ is"):
        prove(graph.open(), llama.report, llama.references, lambda _: None)


@pytest.mark.parametrize(("margin", "right"), [(LIMIT / 2, True), (LIMIT * 2, False)])
def test_another_greedy_token_is_seen_unless_it_is_a_tie(margin: float, *, right: bool) -> None:
    truth = np.array([[1.0, 1.0 + margin], [0.0, 0.0]], np.float32)
    reference = Reference(1, np.array([0, 1]), truth)
    found = np.array([[1.0, 1.0 - LIMIT / 2]], np.float32)

    if right:
        assert compare_greedy([found], [reference]).cases == 1
    else:
        with pytest.raises(ParityError, match="row 0 continues with token 0 at 1 where transformers takes 1"):
            compare_greedy([found], [reference])


class Broken:
    def bind(self, inputs: dict[str, Array], outputs: dict[str, Array]) -> Bound:
        raise RunFailed("no such input")


def test_a_graph_that_does_not_run_is_one_sentence(llama: Llama) -> None:
    with pytest.raises(ParityError, match="the graph fails where transformers does not: no such input"):
        prove(Broken(), llama.report, llama.references, lambda _: None)


def test_a_number_that_is_none_is_no_parity(llama: Llama) -> None:
    references = [replace(each, logits=np.full_like(each.logits, np.nan)) for each in llama.references]

    with pytest.raises(ParityError):
        prove(llama.graph.open(), llama.report, references, lambda _: None)


def test_the_limit_is_what_was_promised() -> None:
    assert LIMIT == 1e-3
