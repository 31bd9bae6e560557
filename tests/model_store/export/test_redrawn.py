"""Errors of a reconstruction: what they are, and that nodes joined to a graph compute them."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from model_store.export.draft import tensor
from model_store.export.errors import DraftError
from model_store.export.redrawn import expected, join, names
from model_store.session import Session
from model_store.zoo.fashion_metrics import StructuralSimilarity

Shape = tuple[int | str, ...]


def halver(shape: Shape, opset: int = 18, inside: str = "h") -> onnx.ModelProto:
    """An "autoencoder" that redraws an item as its half."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("x", "y")]
    half = helper.make_node("Constant", [], [inside], value_float=0.5)
    graph = helper.make_graph([half, helper.make_node("Mul", ["x", inside], ["y"])], "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def joined(shape: Shape, opset: int, *, pictures: bool) -> tuple[Session, list[str]]:
    model = halver(shape, opset)
    x, y = (tensor(name, "float32", *shape) for name in "xy")
    made = join(model, x, y, pictures=pictures)
    model.graph.output.extend(
        helper.make_tensor_value_info(each.name, TensorProto.FLOAT, list(each.shape)) for each in made
    )
    return Session(model.SerializeToString()), [each.name for each in made]


def items(count: int, *shape: int) -> np.ndarray:
    drawn: np.ndarray = np.random.default_rng(0).uniform(0, 1, (count, *shape)).astype(np.float32)
    return drawn


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(("shape", "pictures"), [((3, 8, 12), True), ((5,), False), ((7, 2), False)])
def test_nodes_compute_what_numpy_does(shape: tuple[int, ...], opset: int, pictures: bool) -> None:
    session, made = joined(("batch", *shape), opset, pictures=pictures)
    drawn = items(3, *shape)

    found = dict(zip(made, session.run({"x": drawn}, made), strict=True))

    right = expected(drawn, drawn / 2, pictures=pictures)
    assert set(found) == set(right)
    for name, values in right.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)
    assert made[1].removeprefix("score.") == names(("batch", *shape), pictures=pictures)[0]


@pytest.mark.parametrize(("shape", "pictures"), [((1, 9, 7), True), ((21,), False)])
def test_rows_do_not_depend_on_their_batch(shape: tuple[int, ...], pictures: bool) -> None:
    session, made = joined(("batch", *shape), 18, pictures=pictures)
    drawn = items(17, *shape)
    alone = [session.run({"x": drawn[row : row + 1]}, made) for row in range(17)]
    for count in range(2, 18):
        for place, together in enumerate(session.run({"x": drawn[:count]}, made)):
            assert [row.tobytes() for row in together] == [
                alone[row][place][0].tobytes() for row in range(count)
            ]


def test_the_peak_is_the_maps_maximum() -> None:
    """Masks are cut at its threshold."""
    drawn = items(4, 3, 8, 12)
    found = expected(drawn, drawn / 2, pictures=True)
    np.testing.assert_allclose(found["error_map"].mean(1).max((1, 2)), found["score.peak"], rtol=1e-6)


def test_similarity_is_that_of_the_reference_models() -> None:
    a, b = items(4, 1, 12, 12), np.flip(items(4, 1, 12, 12), 0)
    theirs = StructuralSimilarity(12, 7)(torch.from_numpy(a), torch.from_numpy(b.copy()))
    found = expected(a, b, pictures=True)["score.ssim"]
    np.testing.assert_allclose(found, 1 - theirs.mean((1, 2, 3)).numpy(), atol=1e-5)
    assert expected(a, a, pictures=True)["score.ssim"] == pytest.approx(0, abs=1e-6)


def test_a_small_defect_stands_out_of_the_blurred_maximum() -> None:
    plain = np.full((1, 3, 128, 128), 0.5, np.float32)
    noisy, scratched = plain + items(1, 3, 128, 128) / 50, plain.copy()
    scratched[:, :, 60:68, 60:62] = 1
    far, near = (expected(plain, each, pictures=True) for each in (noisy, scratched))
    assert near["score.l1"] < far["score.l1"]
    assert near["score.peak"] > 5 * far["score.peak"]


def test_small_pictures_have_no_window() -> None:
    assert names(("batch", 1, 6, 8), pictures=True) == ("l2", "l1")


def test_a_map_that_is_there_is_left_alone_and_has_the_maximum() -> None:
    shape = ("batch", 2, 8, 8)
    model, (x, y) = halver(shape), (tensor(name, "float32", *shape) for name in "xy")
    made = join(model, x, y, pictures=True, mapped=y)
    assert [each.role for each in made] == ["score.ssim", "score.l1", "score.l2", "score.peak"]
    peak = made[-1].name
    model.graph.output.append(helper.make_tensor_value_info(peak, TensorProto.FLOAT, ["batch"]))
    drawn = items(3, 2, 8, 8)
    (found,) = Session(model.SerializeToString()).run({"x": drawn}, [peak])
    np.testing.assert_allclose(found, (drawn / 2).mean(1).max((1, 2)), rtol=1e-6)
    right = expected(drawn, drawn / 2, pictures=True, mapped=drawn / 2)
    np.testing.assert_allclose(found, right["score.peak"], rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (halver(("batch", 5), opset=12), "written in opset 12"),
        (halver(("batch", 5), inside="score.l1"), r"a tensor named score\.l1 inside"),
    ],
)
def test_graphs_that_cannot_be_joined_are_refused(model: onnx.ModelProto, complaint: str) -> None:
    x, y = (tensor(name, "float32", "batch", 5) for name in "xy")
    with pytest.raises(DraftError, match=complaint):
        join(model, x, y, pictures=False)
