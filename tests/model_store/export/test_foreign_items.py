"""Graphs made elsewhere that score or redraw items: Anomalib's, autoencoders, and what cannot be told."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Score, TensorItem
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.export.errors import DraftError, ParityError
from model_store.export.foreign import Options, export_graph
from model_store.imaging import Image
from model_store.manifest import Manifest
from model_store.session import Device, open_graph
from model_store.store import Store
from tests.model_store.export.test_redrawn import halver, items

Ends = list[tuple[str, list[int | str | None]]]


def graph_of(
    folder: Path, nodes: list[onnx.NodeProto], inputs: Ends, outputs: Ends, **constants: Any
) -> Path:
    """A file as PyTorch's older exporter writes it: opset 14, names of its own for what varies."""
    kinds = {"pred_label": TensorProto.BOOL, "pred_mask": TensorProto.BOOL}
    ends = [
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in side
        ]
        for side in (inputs, outputs)
    ]
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "main_graph", ends[0], ends[1], made)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8),
        folder / "model.onnx",
    )
    return folder / "model.onnx"


def anomalib(folder: Path) -> Path:
    """What Anomalib 2 exports without a fixed size: four outputs, normalised around 0.5."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["anomaly_map"], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", ["anomaly_map"], ["pred_score"], axes=[2, 3], keepdims=0),
        helper.make_node("Greater", ["pred_score", "half"], ["pred_label"]),
        helper.make_node("Greater", ["anomaly_map", "half"], ["pred_mask"]),
    ]
    shape: list[int | str | None] = ["batch_size", 1, "height", "width"]
    outputs: Ends = [
        ("pred_score", ["s", 1]), ("pred_label", ["l", 1]), ("anomaly_map", shape), ("pred_mask", shape)
    ]  # fmt: skip
    inputs: Ends = [("input", ["batch_size", 3, "height", "width"])]
    return graph_of(folder, nodes, inputs, outputs, half=np.float32(0.5))


def normal(folder: Path, *shape: int, count: int = 20, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", X=items(count, *shape), **arrays)
    return folder / "data.npz"


def exported(
    file: Path,
    calibration: Path | None,
    *mapping: str,
    task: str = "anomaly-detection",
    decoder: Path | None = None,
) -> tuple[Manifest, dict[str, tuple[str, str]]]:
    shown: dict[str, tuple[str, str]] = {}
    options = Options("made", task, mapping, calibration=calibration, decoder=decoder)  # type: ignore[arg-type]  # one of the two
    return export_graph(file, str(file.parent / "store"), options, show=shown.update), shown


def test_anomalib_is_recognised(tmp_path: Path) -> None:
    manifest, shown = exported(anomalib(tmp_path), normal(tmp_path, 3, 8, 12))

    assert shown["pred_score"] == ("FLOAT[s, 1]", "score.anomaly")
    assert shown["anomaly_map"][1] == "error_map"
    assert (manifest.task, manifest.capabilities) == ("anomaly-detection", ("score",))
    assert manifest.image == Image(channels=3, height=8, width=12)
    assert {each.role: each.shape for each in manifest.graphs["score"].outputs} == {
        "score.anomaly": ("batch",),
        "error_map": ("batch", 1, 8, 12),
    }
    drawn = items(3, 3, 8, 12)
    session = open_graph(Store(str(tmp_path / "store")).open("made"), "score", device=Device("cpu"))
    names = {each.role: each.name for each in manifest.graphs["score"].outputs}
    [scores] = session.run({"input": drawn}, [names["score.anomaly"]])
    np.testing.assert_allclose(scores, drawn.mean(1).max((1, 2)), rtol=1e-6)
    assert manifest.scoring is not None
    kept = manifest.scoring.calibrations["anomaly"]
    assert kept.threshold == pytest.approx(
        np.quantile(items(20, 3, 8, 12).mean(1).max((1, 2)), 0.99), rel=1e-5
    )


def test_of_a_map_alone_the_greatest_value_is_the_score(tmp_path: Path) -> None:
    """As Anomalib 1 has it."""
    node = helper.make_node("ReduceMean", ["input"], ["output"], axes=[1], keepdims=1)
    file = graph_of(tmp_path, [node], [("input", ["n", 3, 8, 12])], [("output", ["n", 1, 8, 12])])

    manifest, shown = exported(file, normal(tmp_path, 3, 8, 12))

    assert shown["output"][1] == "error_map"
    assert (manifest.task, manifest.capabilities) == ("anomaly-detection", ("score",))
    session = open_graph(Store(str(tmp_path / "store")).open("made"), "score", device=Device("cpu"))
    drawn = items(3, 3, 8, 12)
    [scores] = session.run({"input": drawn}, ["score.anomaly"])
    np.testing.assert_allclose(scores, drawn.mean(1).max((1, 2)), rtol=1e-6)


async def test_a_server_scores_by_it(tmp_path: Path) -> None:
    exported(anomalib(tmp_path), normal(tmp_path, 3, 8, 12))
    config = HostConfig(store=str(tmp_path / "store"), device="cpu", calibrations=str(tmp_path / "kept"))
    studio = open_studio(config, Metrics(CollectorRegistry()))
    try:
        item = TensorItem(items(1, 3, 8, 12)[0].tobytes(), (3, 8, 12))
        [output] = (await studio.call(Score("made", (item,), map=True))).outputs
    finally:
        studio.close()
    assert output.map is not None
    assert output.score is not None


def test_an_autoencoder_gets_scores(tmp_path: Path) -> None:
    onnx.save(halver(("n", 1, 8, 8)), tmp_path / "model.onnx")
    labels = np.arange(20) >= 15

    manifest, shown = exported(tmp_path / "model.onnx", normal(tmp_path, 1, 8, 8, y=labels))

    assert shown["y"][1] == "reconstruction"
    assert (manifest.task, manifest.capabilities) == ("reconstruction", ("reconstruct", "score"))
    assert manifest.scoring is not None
    assert manifest.scoring.default == "ssim"
    assert set(manifest.scoring.calibrations) == {"ssim", "l1", "l2", "peak"}
    assert manifest.scoring.calibrations["l1"].data == "normal items of data.npz, given at export (15)"
    assert set(manifest.quality) == {f"auroc.{name}" for name in ("ssim", "l1", "l2", "peak")}
    open_graph(Store(str(tmp_path / "store")).open("made"), "reconstruct", device=Device("cpu"))


def test_without_items_an_autoencoder_only_redraws(tmp_path: Path) -> None:
    onnx.save(halver(("n", 5)), tmp_path / "model.onnx")
    manifest, _ = exported(tmp_path / "model.onnx", None, task="reconstruction")
    assert (manifest.capabilities, manifest.scoring) == (("reconstruct",), None)


@pytest.mark.parametrize("latent", [(4,), (1, 2, 2)])
def test_an_encoder_and_a_decoder_become_one_package(tmp_path: Path, latent: tuple[int, ...]) -> None:
    kernel = np.full((1, 1, 2, 2), 0.25, np.float32)
    flat: list[int | str | None] = ["n", *latent]
    shape = np.array([-1, *latent], np.int64)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], strides=[2, 2]),
        helper.make_node("Reshape", ["c", "shape"], ["latent"]),
    ]
    encoder = graph_of(tmp_path, nodes, [("x", ["n", 1, 4, 4])], [("latent", flat)], k=kernel, shape=shape)
    encoder = encoder.rename(tmp_path / "encoder.onnx")
    nodes = [
        helper.make_node("Reshape", ["latent", "shape"], ["c"]),
        helper.make_node("ConvTranspose", ["c", "k"], ["x"], strides=[2, 2]),
    ]
    square = np.array([-1, 1, 2, 2], np.int64)
    decoder = graph_of(
        tmp_path, nodes, [("latent", flat)], [("x", ["n", 1, 4, 4])], k=np.ones_like(kernel), shape=square
    )

    manifest, _ = exported(encoder, normal(tmp_path, 1, 4, 4), task="reconstruction", decoder=decoder)

    assert manifest.capabilities == ("reconstruct", "score", "encode", "embed", "decode", "interpolate")
    package = Store(str(tmp_path / "store")).open("made")
    drawn = items(3, 1, 4, 4)
    whole, back = (open_graph(package, name, device=Device("cpu")) for name in ("reconstruct", "decode"))
    codes, redrawn = whole.run({"x": drawn}, ["latent", "reconstruction"])
    assert codes.shape == (3, 4)
    np.testing.assert_allclose(codes, drawn.reshape(3, 2, 2, 2, 2).mean((2, 4)).reshape(3, 4), rtol=1e-5)
    np.testing.assert_array_equal(back.run({"latent": codes}, ["output"])[0], redrawn)


def test_a_role_is_taken_as_it_is_said(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["a"])
    other = helper.make_node("MatMul", ["x", "v"], ["b"])
    constants = {"w": np.ones(5, np.float32), "v": np.ones((5, 2), np.float32)}
    file = graph_of(tmp_path, [node, other], [("x", ["n", 5])], [("a", ["n"]), ("b", ["n", 2])], **constants)

    manifest, shown = exported(file, normal(tmp_path, 5), "a:score.sum", "b:latent")

    assert shown["a"][1] == "score.sum"
    assert manifest.capabilities == ("score", "encode", "embed")


def summing(folder: Path, name: str, width: int, *outputs: str) -> Path:
    """Each output is x [n, 3] by a matrix of ones."""
    nodes = [helper.make_node("MatMul", ["x", "w"], [each]) for each in outputs]
    ends: Ends = [(each, ["n", width]) for each in outputs]
    return graph_of(folder, nodes, [("x", ["n", 3])], ends, w=np.ones((3, width), np.float32)).rename(
        folder / name
    )


def test_which_output_is_the_latent_can_be_said(tmp_path: Path) -> None:
    encoder, decoder = summing(tmp_path, "e.onnx", 3, "mean", "spread"), summing(tmp_path, "d.onnx", 3, "y")
    with pytest.raises(
        DraftError, match="latent is one tensor, not mean, spread: say which with --map NAME:latent"
    ):
        exported(encoder, None, task="reconstruction", decoder=decoder)
    manifest, _ = exported(encoder, None, "mean:latent", task="reconstruction", decoder=decoder)
    assert manifest.capabilities == ("reconstruct", "encode", "embed", "decode", "interpolate")


def test_an_encoder_and_a_decoder_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    encoder, decoder = summing(tmp_path, "e.onnx", 2, "code"), summing(tmp_path, "d.onnx", 3, "y")
    with pytest.raises(DraftError, match=r"latents of shape \[2\], the decoder takes \[3\]"):
        exported(encoder, None, task="reconstruction", decoder=decoder)
    options = Options("made", "text-generation", decoder=decoder, tokenizer=decoder, context=8)
    with pytest.raises(DraftError, match="belongs to the encoder of an autoencoder"):
        export_graph(encoder, str(tmp_path / "store"), options)
    assert not (tmp_path / "store").exists()


# -- what is refused ------------------------------------------------------------------------------------------------


def test_scores_without_normal_items_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match=r"need a calibration: --calibration data\.npz"):
        exported(file_of(tmp_path, ["n", 5], ["n"]), None)


def file_of(folder: Path, shape: list[int | str | None], out: list[int | str | None]) -> Path:
    """Row sums, or of two dimensions their pairs."""
    weights = np.ones((5, *[size for size in out[1:] if isinstance(size, int)]), np.float32)
    return graph_of(
        folder, [helper.make_node("MatMul", ["x", "w"], ["a"])], [("x", shape)], [("a", out)], w=weights
    )


@pytest.mark.parametrize(
    ("shape", "out", "mapping", "complaint"),
    [
        (["n", 5], ["n", 3], (), "no output has the shape of a score, one number an item"),
        (["n", 5], ["n", 3], ("a:score.x",), "a has not the shape of what is called score.x"),
        ([1, 5], [1], (), r"x FLOAT\[1, 5\]: items are float32 and come in batches"),
        (["n", 5], ["n"], ("b:score.x",), "--map names b; there are x, a"),
        (["n", "k"], ["n"], (), "sizes vary: --calibration"),
    ],
)
def test_what_cannot_be_told_is_asked_for(
    shape: list[int | str | None],
    out: list[int | str | None],
    mapping: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
) -> None:
    items_file = None if "k" in shape else normal(tmp_path, 5)
    with pytest.raises(DraftError, match=complaint):
        exported(file_of(tmp_path, shape, out), items_file, *mapping)
    assert not (tmp_path / "store").exists()


def test_items_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises((DraftError, ParityError), match=r"items of shape \[4\], the model takes \[5\]"):
        exported(file_of(tmp_path, ["n", 5], ["n"]), normal(tmp_path, 4))


def test_rows_that_look_at_each_other_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1)
    file = graph_of(
        tmp_path, [node, helper.make_node("Sub", ["x", "m"], ["y"])], [("x", ["n", 5])], [("y", ["n", 5])]
    )
    with pytest.raises(ParityError, match="rows depend on each other"):
        exported(file, normal(tmp_path, 5))
