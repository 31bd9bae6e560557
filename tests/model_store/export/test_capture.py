import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model_store.export.capture import replace_gathers
from model_store.session import Array, Session


def picking(name: str = "select") -> ModelProto:
    """`y` [batch, selected, 3] are the positions `select` of `x` [batch, time, 3], twice."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", [name, "axis"], ["index"]),
            helper.make_node("GatherND", ["x", "index"], ["picked"], batch_dims=1),
            helper.make_node("Add", ["picked", "picked"], ["y"]),
        ],
        "g",
        [
            value("x", TensorProto.FLOAT, ["batch", "time", 3]),
            value(name, TensorProto.INT64, ["batch", "selected"]),
        ],
        [value("y", TensorProto.FLOAT, ["batch", "selected", 3])],
        [numpy_helper.from_array(np.array([2]), "axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("batch", "time", "selected"), [(1, 1, 1), (4, 1, 1), (3, 5, 2), (1, 7, 7), (2, 4, 0)]
)
def test_the_same_positions_are_picked(batch: int, time: int, selected: int) -> None:
    generator = np.random.default_rng(0)
    feeds: dict[str, Array] = {
        "x": generator.normal(size=(batch, time, 3)).astype(np.float32),
        "select": generator.integers(0, time, (batch, selected)),
    }
    model = picking()
    (expected,) = Session(model.SerializeToString()).run(feeds)
    replace_gathers(model.graph)
    assert "GatherND" not in {node.op_type for node in model.graph.node}
    (found,) = Session(model.SerializeToString()).run(feeds)
    assert found.tobytes() == expected.tobytes()


def test_other_gathers_stay() -> None:
    model = picking("others")
    before = model.SerializeToString()
    replace_gathers(model.graph)
    assert model.SerializeToString() == before
