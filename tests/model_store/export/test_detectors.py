"""What becomes of a graph that scores or redraws items, before it is calibrated."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model_store.export import graph_process
from model_store.export.detectors import check_fit, finish
from model_store.export.draft import GraphDraft, tensor
from model_store.export.errors import DraftError
from model_store.export.graph_process import TorchRun
from model_store.labelled import Labelled
from tests.model_store.export.test_redrawn import items

INPUT = (tensor("x", "float32", "batch", 4, 4, role="input"),)


def ran(folder: Path) -> tuple[GraphDraft, TorchRun]:
    """A score [batch, 1], a map without channels, and something nobody asks for."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["s", "one"], ["score"]),
        helper.make_node("Abs", ["x"], ["map"]),
        helper.make_node("Neg", ["x"], ["other"]),
    ]
    shapes: dict[str, list[str | int | None]] = {
        "x": ["batch", 4, 4],
        "score": ["batch", 1],
        "map": ["batch", 4, 4],
        "other": ["batch", 4, 4],
    }
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(model, graph_process.graph_file(folder))
    outputs = (
        tensor("score", "float32", "batch", 1, role="score.max"),
        tensor("map", "float32", "batch", 4, 4, role="error_map"),
        tensor("other", "float32", "batch", 4, 4),
    )
    return GraphDraft("", INPUT, outputs), TorchRun(folder, [{"x": items(3, 4, 4)}], [{}], None, 0, {})


def test_what_is_served_comes_in_the_shapes_it_is_served_in(tmp_path: Path) -> None:
    graph, run, session = finish(*ran(tmp_path), image=None)

    assert {each.role: each.shape for each in graph.outputs} == {
        "score.max": ("batch",),
        "error_map": ("batch", 1, 4, 4),
    }
    names = [each.name for each in graph.outputs]
    assert list(session.outputs) == names
    scores, shown = session.run(run.cases[0], names)
    np.testing.assert_array_equal(scores, items(3, 4, 4).max((1, 2)))
    np.testing.assert_array_equal(shown[:, 0], items(3, 4, 4))
    with np.load(graph_process.outputs_file(tmp_path, 0)) as golden:
        np.testing.assert_array_equal(golden[names[0]], scores)


def test_weights_outside_of_the_graph_are_refused(tmp_path: Path) -> None:
    graph, run = ran(tmp_path)
    graph_process.data_file(tmp_path).write_bytes(b"weights")
    with pytest.raises(DraftError, match="too many to be kept inside"):
        finish(graph, run, image=None)


def test_items_have_the_models_shape() -> None:
    data = Labelled(items(3, 4), np.zeros(3, np.bool_), "d.npz")
    with pytest.raises(DraftError, match=r"d\.npz has items of shape \[4\], the model takes \[4, 4\]"):
        check_fit(INPUT, data)
