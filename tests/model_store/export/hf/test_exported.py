"""Large weights lie in a file of their own, in the work folder and in the package."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model_store.export.draft import Draft
from model_store.export.hf.exported import EXACT, ROUNDED, Exported, finish
from model_store.export.hf.golden_case import LENGTHS, golden_case
from model_store.export.hf.job import save_graph
from model_store.export.hf.signature import signature, states
from model_store.export.publish import lay_out
from model_store.manifest import Provenance, Text
from model_store.session import Device, open_graph
from model_store.store import Store
from tests.model_store.export.hf.conftest import Llama

NOT_SAID = "not stated"


@pytest.mark.parametrize("tolerance", [EXACT, ROUNDED])
def test_weights_outside_the_graph_reach_the_package(
    tolerance: tuple[float, float], llama: Llama, tmp_path: Path
) -> None:
    graph = Exported(tmp_path / "step.onnx", "float32", tolerance)
    save_graph(ir.load(llama.graph.path), graph.path, most_inline_bytes=0)
    assert graph.data.stat().st_size > 4 * llama.report.parameters * 0.9
    package = tmp_path / "package"
    package.mkdir()

    run = finish(graph, package, tmp_path, llama.report)

    layers = llama.report.layers
    origin = Provenance(
        data=NOT_SAID, data_licence=NOT_SAID, attribution=NOT_SAID, home=NOT_SAID, recipe=NOT_SAID
    )
    text = Text(
        tokenizer="tokenizer.json",
        vocabulary=288,
        context=256,
        state=states(layers, "float32"),
        attention=True,
    )
    draft = Draft(
        "large", "text-generation", "transformer", ("complete",), "", "MIT", origin,
        {"step": signature(layers, "float32")}, {"tokenizer.json": b"{}"}, text,
    )  # fmt: skip
    lay_out(draft, "1", {"step": run}, package)
    store = Store(str(tmp_path / "store"))
    manifest = store.publish(package)
    golden = manifest.graphs["step"].golden
    assert "step.onnx.data" in manifest.files
    assert manifest.files["step.onnx"].bytes < graph.path.stat().st_size + 100_000
    assert (golden.rtol, golden.atol) == tolerance
    assert "token" in open_graph(store.open("large"), "step", device=Device("cpu")).outputs


def test_the_golden_run_is_far_from_a_tie(llama: Llama) -> None:
    session = llama.graph.open()
    case = golden_case(session, llama.report.layers, 288, "float32")
    outputs = {name: np.empty((2, 1, 288), np.float32) for name in ("logits",)}
    state = {name: array for name, array in case.items() if name.startswith("past")}
    feeds = {name: case[name] for name in ("input_ids", "select", "seqlens_k", "total_sequence_length")}
    present = {name.replace("past_key_values", "present"): array for name, array in state.items()}

    session.bind({**feeds, **state}, {**outputs, **present}).run()

    top = np.sort(outputs["logits"][:, 0], -1)
    assert (top[:, -1] - top[:, -2]).min() > 0.05
    assert case["seqlens_k"].tolist() == list(LENGTHS)  # with the new token
