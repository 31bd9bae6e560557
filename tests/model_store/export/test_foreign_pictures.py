"""Graphs made elsewhere that make pictures: roles, rows alone and among others, what the manifest says, what is served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Draw
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.export.errors import DraftError, ParityError
from model_store.export.foreign import Options, export_graph
from model_store.export.foreign_pictures import Pictures
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.manifest import Manifest
from tests.model_store.export.hf.graphs import Spec, constant, graph_of

FLOAT, LONG, INT = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32
NAMES = ("cat", "dog")


def denoiser(
    *,
    latent: str = "x",
    time: str = "t",
    output: str = "velocity",
    sides: Sequence[int | str] = (8, 8),
    label: str | None = "y",
    mixed: bool = False,
    rows: int | str = "batch",
) -> ir.Model:
    """A latent moved by the time and by its class, of which there are two and none."""
    shape = [rows, 3, *sides]

    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        nodes: list[ir.Node] = []

        def node(operator: str, *inputs: ir.Value, into: str | None = None, **attributes: int) -> ir.Value:
            outputs = [v[into]] if into else None
            nodes.append(ir.node(operator, list(inputs), attributes, outputs=outputs))
            return nodes[-1].outputs[0]

        axes = constant("axes", np.array([1, 2, 3]))
        moved = node("Add", node("Tanh", v[latent]), node("Unsqueeze", v[time], axes))
        if label:
            table = constant("table", np.array([0.1, -0.1, 0.0], np.float32))
            moved = node("Add", moved, node("Unsqueeze", node("Gather", table, v[label]), axes))
        if mixed:
            moved = node("Sub", moved, node("ReduceMean", moved, constant("rows", np.array([0]))))
        node("Neg", moved, into=output)
        return nodes

    inputs: list[Spec] = [(latent, FLOAT, shape), (time, FLOAT, [rows])]
    if label:
        inputs.append((label, LONG, [rows]))
    return graph_of(inputs, [(output, FLOAT, shape)], build)


def generator(*, spread: float = 1.0, flat: bool = False) -> ir.Model:
    """Noise [batch, 48] as a picture of 4 x 4 pixels, or as its pixels in a line."""
    sides = [16] if flat else [4, 4]

    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        shape = constant("shape", np.array([-1, 3, *sides]))
        bright = ir.node("Sigmoid", [v["z"]])
        wide = ir.node("Mul", [bright.outputs[0], constant("spread", np.array(spread, np.float32))])
        return [bright, wide, ir.node("Reshape", [wide.outputs[0], shape], outputs=[v["image"]])]

    return graph_of([("z", FLOAT, ["n", 48])], [("image", FLOAT, ["n", 3, *sides])], build)


def export(
    model: ir.Model, folder: Path, *said: str, **pictures: Any
) -> tuple[Manifest, dict[str, str], list[Figure]]:
    folder.mkdir(exist_ok=True)
    ir.save(model, folder / "model.onnx")
    shown, figures = dict[str, str](), list[Figure]()
    options = Options("made", "image-generation", said, pictures=Pictures(**pictures))
    manifest = export_graph(
        folder / "model.onnx", str(folder / "store"), options, Witness(figure=figures.append),
        lambda roles: shown.update({name: role for name, (_, role) in roles.items()}),
    )  # fmt: skip
    return manifest, shown, figures


async def drawn(folder: Path, **asked: Any) -> bytes:
    studio = open_studio(HostConfig(store=str(folder / "store"), device="cpu"), Metrics(CollectorRegistry()))
    try:
        return (await studio.call(Draw("made", **asked))).outputs[0].image or b""
    finally:
        studio.close()


async def test_a_flow_is_served(tmp_path: Path) -> None:
    manifest, shown, figures = export(denoiser(), tmp_path, classes=NAMES, guidance=2.0, steps=4)

    assert shown == {"x": "latent", "t": "time", "y": "label", "velocity": "velocity"}
    assert [(figure.output, figure.error < 1e-6) for figure in figures] == [
        ("rows alone and among others", True)
    ]
    assert (manifest.family, manifest.capabilities) == ("flow", ("generate_image", "edit_image"))
    image = manifest.image
    assert image is not None
    assert image.denoise is not None
    assert (image.channels, image.width, image.height, image.classes) == (3, 8, 8, NAMES)
    part = image.denoise
    assert (part.prediction, part.spacing, part.steps, part.guidance, part.most_guidance) == (
        "velocity",
        "even",
        4,
        2.0,
        20.0,
    )
    assert manifest.graphs["denoise"].golden.rtol == 1e-3
    pictures = {await drawn(tmp_path, prompt=name, seed=1) for name in NAMES}
    assert len(pictures) == 2


async def test_a_diffusion_model_says_its_betas(tmp_path: Path) -> None:
    model = denoiser(latent="sample", time="timestep", output="out", label=None, sides=("h", "w"))

    manifest, shown, _ = export(
        model, tmp_path, "out:epsilon", sizes=("8x16", "16x16"), betas="scaled_linear:0.00085:0.012"
    )

    assert shown == {"sample": "latent", "timestep": "time", "out": "epsilon"}
    assert manifest.family == "diffusion"
    assert manifest.image is not None
    part = manifest.image.denoise
    assert part is not None
    assert part.betas is not None
    assert (part.betas.schedule, part.betas.start, part.solvers[0], part.most_guidance) == (
        "scaled_linear",
        0.00085,
        "dpm",
        1.0,
    )
    assert (manifest.image.width, manifest.image.height, part.sizes) == (8, 16, ((16, 16),))
    assert manifest.graphs["denoise"].inputs[0].shape == ("batch", 3, "height", "width")
    assert (await drawn(tmp_path, size=(16, 16), steps=2)).startswith(b"\x89PNG")


async def test_a_model_may_take_its_size_and_guide_itself(tmp_path: Path) -> None:
    model = denoiser(label=None)
    taken: dict[str, list[int | str]] = {"size": ["batch", 2], "guidance_scale": ["batch"]}
    for name, shape in taken.items():
        model.graph.inputs.append(ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT)))

    _, shown, _ = export(model, tmp_path, guidance=3.0)

    assert (shown["size"], shown["guidance_scale"]) == ("size", "guidance")
    assert (await drawn(tmp_path, guidance=2.0)).startswith(b"\x89PNG")


async def test_a_generator_is_served(tmp_path: Path) -> None:
    manifest, shown, _ = export(generator(), tmp_path)

    assert shown == {"z": "noise", "image": "output"}
    assert manifest.family == "gan"
    assert manifest.image is not None
    assert (manifest.image.generator, manifest.image.noise, manifest.image.width) == ("generate", "noise", 4)
    assert (await drawn(tmp_path)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("model", "said", "pictures", "complaint"),
    [
        (denoiser(), [], {}, "say what the classes are called: --class-name"),
        (denoiser(label=None), [], {"classes": NAMES}, "--class-name is given, and no input is a class"),
        (denoiser(label="caption"), ["caption:caption"], {}, "caption: a denoiser is given latent, time, label"),
        (denoiser(output="out"), [], {"classes": NAMES}, "say what the model predicts: --map out:ROLE, one of velocity"),
        (denoiser(), ["nothing:time"], {}, "--map names nothing; there are x, t, y, velocity"),
        (denoiser(time="a", label=None), ["a:size"], {}, "needs a tensor with the role time"),
        (denoiser(rows=1), [], {}, r"x FLOAT\[1,3,8,8\]|a first dimension that varies"),
        (denoiser(label=None), [], {"sizes": ("8x8",)}, "--size is given, and the graph makes 8x8 only"),
        (denoiser(label=None, sides=("h", "w")), [], {}, "the size varies, say --size WIDTHxHEIGHT"),
        (denoiser(label=None, output="eps"), [], {"betas": "cosine:1:2"}, "--betas 'cosine:1:2' is not like"),
        (denoiser(label=None, output="eps"), [], {"betas": "linear"}, "--betas 'linear' is not like"),
        (denoiser(label=None), [], {"guidance": 30.0}, "this cannot be said of pictures"),
        (generator(flat=True), [], {}, r"image: a picture is \[batch, channels, height, width\]"),
        (generator(spread=2.0), [], {}, "has values from .*, where a picture's are from 0 to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(
    tmp_path: Path, model: ir.Model, said: Sequence[str], pictures: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DraftError, match=complaint):
        export(model, tmp_path, *said, **pictures)
    assert not list((tmp_path / "store").glob("made/*"))


def test_rows_that_depend_on_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="rows depend on each other: outputs differ by"):
        export(denoiser(mixed=True), tmp_path, classes=NAMES)


def test_a_graph_that_only_runs_alone_is_refused(tmp_path: Path) -> None:
    model = denoiser(label=None)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["batch", *list(value.shape or [])[1:]])
    one = ir.node("Reshape", [model.graph.inputs[0], constant("one", np.array([1, 3, 8, 8]))])
    one.outputs[0].name = "only"
    model.graph.initializers["one"] = one.inputs[1]  # type: ignore[assignment]
    model.graph.inputs[0].replace_all_uses_with(one.outputs[0])
    one.replace_input_with(0, model.graph.inputs[0])
    model.graph.insert_before(model.graph[0], one)

    with pytest.raises(ParityError, match="the graph does not run with 3 rows"):
        export(model, tmp_path)
