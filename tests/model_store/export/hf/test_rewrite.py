"""Each change to a graph on its own: fewer nodes, the same numbers; and patterns that are not quite there stay."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

from model_store.export.hf import rewrite
from model_store.session import Session
from tests.model_store.export.hf.graphs import Spec, constant, graph_of

FLOAT = ir.DataType.FLOAT
STREAM: Sequence[int | str] = ["batch", "time", 8]
Build = Callable[[dict[str, ir.Value]], list[ir.Node]]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def typed(node: ir.Node, *shapes: Sequence[int | str]) -> list[ir.Value]:
    """The node's outputs with shapes, as an exporter leaves them."""
    for value, shape in zip(node.outputs, shapes, strict=True):
        value.shape, value.type = ir.Shape(shape), ir.TensorType(FLOAT)
    return list(node.outputs)


def model_of(build: Build, outputs: Sequence[str] = ("y",), shape: Sequence[int | str] = STREAM) -> ir.Model:
    inputs: list[Spec] = [(name, FLOAT, STREAM) for name in ("a", "b")]
    return graph_of(inputs, [(name, FLOAT, shape) for name in outputs], build)


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def check(model: ir.Model, change: Callable[[ir.Model], None], expected: list[str]) -> None:
    """Apply the change; the nodes that are left are as expected, and compute the same."""
    feeds = {"a": random(2, 3, 8), "b": random(2, 3, 8, seed=1)}
    before = Session(ir.to_proto(model).SerializeToString()).run(feeds)

    change(model)
    RemoveUnusedNodesPass()(model)

    after = Session(ir.to_proto(model).SerializeToString()).run(feeds)
    assert kinds(model) == expected
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def shape_of(*sizes: int) -> ir.Value:
    return constant("shape_" + "_".join(map(str, sizes)), np.array(sizes))


def test_reshapes_there_and_back_go() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        there = ir.node("Reshape", [v["a"], shape_of(2, 3, 2, 4)])
        [heads] = typed(there, ["batch", "time", 2, 4])
        back = ir.node("Reshape", [heads, shape_of(2, 3, 8)])
        [flat] = typed(back, STREAM)
        return [there, back, ir.node("Add", [flat, v["b"]], outputs=[v["y"]])]

    check(model_of(build), rewrite.drop_reshapes, ["Add"])


def test_a_reshape_that_changes_something_stays() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        first = ir.node("Reshape", [v["a"], shape_of(2, 3, 2, 4)])
        [heads] = typed(first, ["batch", "time", 2, 4])
        second = ir.node("Reshape", [heads, shape_of(2, 3, 4, 2)])
        [other] = typed(second, ["batch", "time", 4, 2])
        return [first, second, ir.node("Neg", [other], outputs=[v["y"]])]

    check(model_of(build, shape=["batch", "time", 4, 2]), rewrite.drop_reshapes, ["Reshape", "Neg"])


def test_transposes_that_undo_each_other_go() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        one = ir.node("Transpose", [v["a"]], {"perm": [1, 2, 0]})
        two = ir.node("Transpose", [one.outputs[0]], {"perm": [2, 0, 1]})
        return [one, two, ir.node("Add", [two.outputs[0], v["b"]], outputs=[v["y"]])]

    check(model_of(build), rewrite.drop_transposes, ["Add"])


def test_other_transposes_stay() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        one = ir.node("Transpose", [v["a"]], {"perm": [1, 2, 0]})
        two = ir.node("Transpose", [one.outputs[0]], {"perm": [1, 2, 0]})
        return [one, two, ir.node("Neg", [two.outputs[0]], outputs=[v["y"]])]

    check(
        model_of(build, shape=[8, "batch", "time"]),
        rewrite.drop_transposes,
        ["Transpose", "Transpose", "Neg"],
    )


@pytest.mark.parametrize(("middle", "left"), [(3, ["Neg"]), (4, ["Slice", "Slice", "Concat", "Neg"])])
def test_slices_put_together_again_are_the_whole(middle: int, left: list[str]) -> None:
    def piece(v: dict[str, ir.Value], start: int, end: int) -> ir.Node:
        ends = [constant(f"c{each}", np.array([each])) for each in (start, end)]
        return ir.node("Slice", [v["a"], *ends, constant("axis", np.array([2]))])

    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        first, second = piece(v, 0, 3), piece(v, middle, 2**62)
        joined = ir.node("Concat", [first.outputs[0], second.outputs[0]], {"axis": -1})
        return [first, second, joined, ir.node("Neg", [joined.outputs[0]], outputs=[v["y"]])]

    check(model_of(build, shape=["batch", "time", 11 - middle]), rewrite.drop_concatenations, left)


def test_silu_is_one_node() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        gate = ir.node("Sigmoid", [v["a"]])
        return [gate, ir.node("Mul", [gate.outputs[0], v["a"]], outputs=[v["y"]])]

    check(model_of(build), rewrite.fuse_silu, ["QuickGelu"])


def test_another_gate_is_no_silu() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        gate = ir.node("Sigmoid", [v["a"]])
        return [gate, ir.node("Mul", [gate.outputs[0], v["b"]], outputs=[v["y"]])]

    check(model_of(build), rewrite.fuse_silu, ["Sigmoid", "Mul"])


def normed(v: dict[str, ir.Value], operator: str, *, bias: bool, axis: int = -1) -> list[ir.Node]:
    """y = norm(a + b [+ bias]); z = that sum, doubled."""
    summand, nodes = v["b"], []
    if bias:
        nodes.append(ir.node("Add", [v["b"], constant("bias", random(8, seed=5))]))
        [summand] = typed(nodes[0], STREAM)
    add = ir.node("Add", [v["a"], summand])
    [total] = typed(add, STREAM)
    scales = [constant("scale", random(8, seed=3))]
    if operator == "LayerNormalization":
        scales.append(constant("shift", random(8, seed=4)))
    norm = ir.node(operator, [total, *scales], {"axis": axis, "epsilon": 1e-3})
    [out] = typed(norm, STREAM)
    return [
        *nodes, add, norm, ir.node("Neg", [out], outputs=[v["y"]]), ir.node("Add", [total, total], outputs=[v["z"]]),
    ]  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("operator", "fused"),
    [
        ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"),
        ("LayerNormalization", "SkipLayerNormalization"),
    ],
)
def test_a_sum_and_its_norm_are_one_node(operator: str, fused: str, *, bias: bool) -> None:
    check(
        model_of(lambda v: normed(v, operator, bias=bias), ("y", "z")),
        rewrite.fuse_skips,
        [fused, "Neg", "Add"],
    )


def test_a_layer_norm_without_a_shift_takes_a_bias_in_its_place() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        made = normed(v, "LayerNormalization", bias=True)
        made[2].resize_inputs(2)
        return made

    check(model_of(build, ("y", "z")), rewrite.fuse_skips, ["SkipLayerNormalization", "Neg", "Add"])


def test_a_norm_over_more_axes_stays() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        total = ir.node("Add", [v["a"], v["b"]])
        [out] = typed(total, STREAM)
        scale = constant("scale", random(3, 8))
        return [total, ir.node("LayerNormalization", [out, scale], {"axis": 1}, outputs=[v["y"]])]

    check(model_of(build), rewrite.fuse_skips, ["Add", "LayerNormalization"])


def attention(*, biases: Sequence[int], shared: bool = True) -> ir.Model:
    """Projections of `a` into attention over an empty cache; `biases` says which of the three have one."""
    cache: list[int | str] = [2, 1, "cache", 8]

    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        nodes, flat = [], []
        for place, name in enumerate("qkv"):
            source = v["a"] if shared or place == 0 else v["b"]
            nodes.append(ir.node("MatMul", [source, constant(f"w{name}", random(8, 8, seed=place))]))
            if place in biases:
                nodes.append(
                    ir.node("Add", [nodes[-1].outputs[0], constant(f"b{name}", random(8, seed=9 + place))])
                )
            flat += typed(nodes[-1], STREAM)
        inputs = [*flat, v["past_k"], v["past_v"], v["last"], v["total"]]
        attributes = {"num_heads": 1, "kv_num_heads": 1}
        node = ir.node(
            "GroupQueryAttention",
            inputs,
            attributes,
            domain="com.microsoft",
            outputs=[v["y"], v["k"], v["v"]],
        )
        return [*nodes, node]

    inputs: list[Spec] = [
        ("a", FLOAT, STREAM), ("b", FLOAT, STREAM), ("past_k", FLOAT, cache), ("past_v", FLOAT, cache),
        ("last", ir.DataType.INT32, [2]), ("total", ir.DataType.INT32, []),
    ]  # fmt: skip
    outputs: list[Spec] = [("y", FLOAT, STREAM), ("k", FLOAT, cache), ("v", FLOAT, cache)]
    return graph_of(inputs, outputs, build)


def attend(model: ir.Model) -> np.ndarray:
    feeds = {
        "a": random(2, 3, 8), "b": random(2, 3, 8, seed=1), "past_k": np.zeros((2, 1, 4, 8), np.float32),
        "past_v": np.zeros((2, 1, 4, 8), np.float32), "last": np.full(2, 2, np.int32), "total": np.array(3, np.int32),
    }  # fmt: skip
    return Session(ir.to_proto(model).SerializeToString()).run(feeds)[0]


@pytest.mark.parametrize(
    ("biases", "shared", "left"),
    [
        ((), True, ["MatMul", "GroupQueryAttention"]),
        ((0, 1, 2), True, ["MatMul", "Add", "GroupQueryAttention"]),
        ((0,), True, ["MatMul", "Add", "MatMul", "MatMul", "GroupQueryAttention"]),
        ((), False, ["MatMul", "MatMul", "MatMul", "GroupQueryAttention"]),
    ],
)
def test_three_projections_of_one_input_are_one_product(
    biases: tuple[int, ...], left: list[str], *, shared: bool
) -> None:
    model = attention(biases=biases, shared=shared)
    before = attend(model)

    rewrite.pack_attention(model)
    RemoveUnusedNodesPass()(model)

    assert kinds(model) == left
    np.testing.assert_allclose(attend(model), before, rtol=1e-5, atol=1e-6)


def test_names_of_outputs_survive() -> None:
    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        there = ir.node("Reshape", [v["a"], shape_of(2, 3, 8)], outputs=[v["y"]])
        gate = ir.node("Sigmoid", [v["b"]])
        return [there, gate, ir.node("Mul", [v["b"], gate.outputs[0]], outputs=[v["z"]])]

    model = model_of(build, ("y", "z"))
    check(model, rewrite.simplify_graph, ["Reshape", "QuickGelu"])

    assert [value.name for value in model.graph.outputs] == ["y", "z"]
