"""Rounded weights: what the blocks stand for, how far off they are, and that ONNX Runtime reads them the same way."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_store.export.hf.quantize import SHRINKS, Bits, quantize_graph, round_matrix, unpack
from model_store.session import Session
from tests.model_store.export.hf.graphs import constant, graph_of

FLOAT = ir.DataType.FLOAT


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32]),
    shift=st.floats(-3, 3),
)
@example(rows=2, columns=32, bits=4, block=32, shift=0.0625)  # shrunk: the extreme is cut off
@settings(max_examples=40, deadline=None)
def test_a_weight_moves_by_half_a_step_unless_it_is_cut_off(
    rows: int, columns: int, bits: Bits, block: int, shift: float
) -> None:
    matrix = random(rows, columns) + np.float32(shift)

    blocks = round_matrix(matrix, bits, block)

    steps = np.repeat(np.abs(blocks.scales), block, -1)[:, :columns]
    apart = np.abs(unpack(blocks, bits, columns) - matrix)
    most = (1 << (bits - 1)) - 1
    inside = np.abs(matrix) <= (most - 0.5) * steps
    assert blocks.zeros is not None or (apart <= steps / 2 + 1e-6)[inside].all()
    smallest = min(SHRINKS) if bits == 4 else 1
    cut = (most + 1) / smallest - most  # at the end of the range that has a step less
    assert (apart <= cut * steps + 1e-6).all()
    assert blocks.error == pytest.approx(np.square(apart, dtype=np.float64).sum(), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_one_side_of_zero_get_zero_points(bits: Bits) -> None:
    centred, shifted = random(64, 256), np.abs(random(64, 256))

    assert round_matrix(centred, bits, 32).zeros is None
    assert round_matrix(shifted, bits, 32).zeros is not None


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: Bits) -> None:
    assert not unpack(round_matrix(np.zeros((2, 32), np.float32), bits, 16), bits, 32).any()


def test_more_bits_and_smaller_blocks_lose_less() -> None:
    matrix = random(16, 256)

    settings: list[tuple[Bits, int]] = [(4, 256), (4, 32), (8, 256), (8, 32)]
    errors = [round_matrix(matrix, bits, block).error for bits, block in settings]

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 200


def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    [found] = Session(ir.to_proto(model).SerializeToString()).run(feeds)
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("positive", [False, True])
def test_a_product_is_what_its_blocks_stand_for(bits: Bits, *, positive: bool) -> None:
    weights = np.abs(random(64, 24)) if positive else random(64, 24)
    x = random(2, 3, 64, seed=1)
    model = graph_of(
        [("x", FLOAT, ["batch", "time", 64])], [("y", FLOAT, ["batch", "time", 24])],
        lambda v: [ir.node("MatMul", [v["x"], constant("w", weights)], outputs=[v["y"]])],
    )  # fmt: skip

    assert quantize_graph(model, bits, 32) == 1

    expected = x @ unpack(round_matrix(weights.T, bits, 32), bits, 64).T
    assert {node.op_type for node in model.graph} == {"MatMulNBits"}
    assert np.abs(run(model, x=x) - expected).max() < 0.02 * np.abs(expected).max()  # activations in int8


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [64, 48])  # two blocks, and one and a half
@pytest.mark.parametrize("positive", [False, True])
def test_an_embedding_shares_the_heads_blocks(bits: Bits, columns: int, *, positive: bool) -> None:
    table = np.abs(random(40, columns)) if positive else random(40, columns)
    ids = np.array([[3, 39], [0, 7]])

    def nodes(v: dict[str, ir.Value]) -> list[ir.Node]:
        weights = constant("w", table)
        embedded = ir.node("Gather", [weights, v["ids"]])
        turned = ir.node("Transpose", [weights], {"perm": [1, 0]})
        return [
            embedded, turned, ir.node("MatMul", [embedded.outputs[0], turned.outputs[0]], outputs=[v["y"]]),
        ]  # fmt: skip

    model = graph_of(
        [("ids", ir.DataType.INT64, ["batch", "time"])], [("y", FLOAT, ["batch", "time", 40])], nodes
    )
    quantize_graph(model, bits, 32)

    rounded = unpack(round_matrix(table, bits, 32), bits, columns)
    expected = rounded[ids] @ rounded.T
    assert np.abs(run(model, ids=ids) - expected).max() < 0.02 * np.abs(expected).max()
    cut = ["Slice"] if columns == 48 else []
    assert [node.op_type for node in model.graph] == ["Reshape", "GatherBlockQuantized", *cut, "MatMulNBits"]
    assert table.nbytes > 2.2 * sum(
        v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value
    ) / (2 if bits == 8 else 1)


def test_products_of_two_activations_are_left_alone() -> None:
    shape: list[int | str] = ["batch", 4, 4]
    model = graph_of(
        [("a", FLOAT, shape), ("b", FLOAT, shape)], [("y", FLOAT, shape)],
        lambda v: [ir.node("MatMul", [v["a"], v["b"]], outputs=[v["y"]])],
    )  # fmt: skip

    assert quantize_graph(model, 4, 32) == 0
