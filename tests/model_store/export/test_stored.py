import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from model_store.export.errors import GraphFailed
from model_store.export.stored import SMALLEST, round_weights, store_halves


def model(weights: np.ndarray, bias: np.ndarray) -> onnx_ir.Model:
    """`input` [rows, 32] times `weights` [32, 16], twice added up, plus `bias` [16]."""
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["product"]),
        helper.make_node("MatMul", ["input", "weights"], ["again"]),
        helper.make_node("Add", ["product", "again"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["output"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("input", 32), ("output", 16))
    ]
    stored = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return onnx_ir.from_proto(made)


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    [output] = ReferenceEvaluator(model).run(None, {"input": rows})
    return np.asarray(output)


@pytest.fixture
def rounded() -> np.ndarray:
    """Weights [32, 16] that float16 holds."""
    weights = np.random.default_rng(0).standard_normal((32, 16))
    return weights.astype(np.float16).astype(np.float32)


def test_rounded_weights_take_half_the_bytes_and_compute_the_same(rounded: np.ndarray) -> None:
    bias, rows = np.ones(16, np.float32), np.random.default_rng(1).random((3, 32), np.float32)
    before = onnx_ir.to_proto(model(rounded, bias))
    narrowed = model(rounded, bias)
    store_halves(narrowed)
    after = onnx_ir.to_proto(narrowed)
    onnx.checker.check_model(after)
    assert {each.name: each.data_type for each in after.graph.initializer} == {
        "weights.float16": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
    }
    assert np.array_equal(run(after, rows), run(before, rows))
    assert before.ByteSize() - after.ByteSize() > 2 * rounded.size - 200


def test_what_float16_does_not_hold_stays_as_it_is(rounded: np.ndarray) -> None:
    for weights in (rounded + np.float32(1e-5), rounded * np.float32(1e6)):
        full = model(weights, np.ones(16, np.float32))
        store_halves(full)
        assert [*full.graph.initializers] == ["weights", "bias"]


def test_other_types_stay_as_they_are() -> None:
    graph = model(np.ones((32, 16), np.float32), np.ones(16, np.float32))
    whole = onnx_ir.tensor(np.ones(SMALLEST, np.int64), name="whole")
    graph.graph.register_initializer(onnx_ir.Value(name="whole", const_value=whole))
    store_halves(graph)
    assert graph.graph.initializers["whole"].const_value is whole


def test_a_modules_weights_are_rounded_in_place_and_its_buffers_are_not() -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 4)
    module.register_buffer("table", torch.rand(8))
    weight, table = module.weight.detach().clone(), module.get_buffer("table").clone()
    round_weights(module)
    assert torch.equal(module.weight, weight.half().float())
    assert not torch.equal(module.weight, weight)
    assert torch.equal(module.get_buffer("table"), table)
    assert module.weight.requires_grad


def test_weights_out_of_reach_are_refused_by_name() -> None:
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.bias[0] = 1e5
    with pytest.raises(GraphFailed, match="the weights bias are too large"):
        round_weights(module)
