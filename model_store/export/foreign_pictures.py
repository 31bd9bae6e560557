"""A graph made elsewhere that makes pictures, in one step or in many, becomes a package: roles, rows alone, a golden run, sealed.

Conventions cannot be seen in a graph. A flow's `time` runs from 0 (noise) to 1 (data); latents and noise are standard normal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from pydantic import ValidationError

from model_store.export.cases import Array, Case
from model_store.export.diffusers.options import Size, parse_size
from model_store.export.draft import GraphDraft
from model_store.export.errors import DraftError
from model_store.export.foreign_graph import described
from model_store.export.foreign_run import run_graph
from model_store.export.graph_process import TorchRun
from model_store.export.roles import PREDICTIONS, assign_denoiser, assign_inputs, assign_outputs
from model_store.export.witness import Witness
from model_store.imaging import Betas, Denoise, Image
from model_store.manifest import DType, Family, Tensor

DRAWS: Final = "generate"
DENOISES: Final = "denoise"
ROWS: Final = 3
MOST_GUIDANCE: Final = 20.0
_DTYPES: Final[Mapping[ir.DataType | None, DType]] = {
    ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.INT64: "int64", ir.DataType.INT32: "int32",
}  # fmt: skip
_SIDES: Final = ("height", "width")


@dataclass(frozen=True)
class Pictures:
    """What is said of a graph that makes pictures.

    `sizes`, `WIDTHxHEIGHT`, are needed where the graph's own vary; the first is the default. `betas` (`linear:0.0001:0.02`) are what a
    diffusion model was trained with. With a `guidance` above 1 the graph knows a class behind the last one: none.
    """

    classes: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    betas: str = "linear:0.0001:0.02"
    guidance: float = 1.0
    steps: int = 20


Show: TypeAlias = Callable[[Mapping[str, tuple[str, str]]], None]
"""Gets each tensor's description and role by name."""


@dataclass(frozen=True)
class Made:
    """One graph that makes pictures: its place in a package, its signature, what the manifest says of it, its golden run."""

    name: str
    graph: GraphDraft
    image: Image
    run: TorchRun

    @property
    def family(self) -> Family:
        """What kind of model it is, as far as its tensors tell."""
        if self.image.denoise is None:
            return "gan"
        return "flow" if self.image.denoise.betas is None else "diffusion"


def make_pictures(
    model: ir.Model, said: Mapping[str, str], options: Pictures, folder: Path, witness: Witness, show: Show
) -> Made:
    """Give the tensors their roles, run rows alone and together, and record a run. Raises DraftError, ParityError."""
    values = (*model.graph.inputs, *model.graph.outputs)
    inputs, outputs = ([_tensor(each) for each in side] for side in (model.graph.inputs, model.graph.outputs))
    unknown = sorted(said.keys() - {str(each.name) for each in values})
    if unknown:
        raise DraftError(
            f"--map names {', '.join(unknown)}; there are {', '.join(str(v.name) for v in values)}"
        )
    ins, outs = (
        {each.name: said[each.name] for each in side if each.name in said} for side in (inputs, outputs)
    )
    denoises = any(each.dtype.startswith("float") and len(each.shape) == 4 for each in inputs)
    if denoises:
        inputs, outputs = assign_denoiser(inputs, outputs, ins, outs)
    else:
        inputs = assign_inputs("image-generation", inputs, ins, "--map")
        outputs = assign_outputs("image-generation", inputs, outputs, outs, "--map")
    roles = {each.name: each.role for each in (*inputs, *outputs)}
    show({str(value.name): (described(value), roles[str(value.name)]) for value in values})
    graph = GraphDraft("", tuple(inputs), tuple(outputs))
    image = _image(graph, options, denoises=denoises)
    witness.step("compare rows together with rows alone")
    name = DENOISES if denoises else DRAWS
    run = run_graph(model, [_case(graph, image)], name, folder, witness)
    _check_picture(graph, run.outputs[0])
    return Made(name, graph, image, run)


def _tensor(value: ir.Value) -> Tensor:
    """Type and shape; the first dimension must be free, and counts rows."""
    dtype = _DTYPES.get(value.dtype)
    if dtype is None or value.shape is None or not len(value.shape) or isinstance(value.shape[0], int):
        raise DraftError(
            f"{value.name} {described(value)}: a tensor has float32, float16, int64 or int32 numbers and a first dimension that varies, one row a picture"
        )
    free = dict(enumerate(_SIDES, 2)) if len(value.shape) == 4 else {}
    shape = [
        size if isinstance(size, int) else free.get(place, f"free_{place}")
        for place, size in enumerate(value.shape)
    ]
    return Tensor(name=str(value.name), role=str(value.name), dtype=dtype, shape=("batch", *shape[1:]))


def _image(graph: GraphDraft, options: Pictures, *, denoises: bool) -> Image:
    by_role = {each.role: each for each in (*graph.inputs, *graph.outputs)}
    picture = by_role["latent" if denoises else "output"]
    labelled = bool(by_role.keys() & {"label", "class_id"})
    if labelled != bool(options.classes):
        raise DraftError(
            "say what the classes are called: --class-name NAME, in the order of their numbers"
            if labelled
            else "--class-name is given, and no input is a class"
        )
    if len(picture.shape) != 4 or not isinstance(picture.shape[1], int):
        raise DraftError(
            f"{picture.name}: a picture is [batch, channels, height, width], of so many channels"
        )
    sizes = _sizes(picture, options, denoises=denoises)
    try:
        return Image(
            channels=picture.shape[1],  # type: ignore[arg-type]  # checked by it
            width=sizes[0][0],
            height=sizes[0][1],
            classes=options.classes,
            generator=None if denoises else DRAWS,
            noise=None if denoises else "noise",
            denoise=_denoise(by_role, sizes, options) if denoises else None,
        )
    except ValidationError as error:
        raise DraftError(f"this cannot be said of pictures: {error.errors()[0]['msg']}") from error


def _sizes(picture: Tensor, options: Pictures, *, denoises: bool) -> list[Size]:
    sizes = list(map(parse_size, options.sizes))
    own = [size for size in picture.shape[:1:-1] if isinstance(size, int)]
    if len(own) == 2:
        if sizes:
            raise DraftError(f"--size is given, and the graph makes {own[0]}x{own[1]} only")
        return [(own[0], own[1])]
    if not sizes or not denoises:
        raise DraftError(
            f"{picture.name}: the size varies, "
            + ("say --size WIDTHxHEIGHT" if denoises else "which one step does not ask for")
        )
    return sizes


def _denoise(by_role: Mapping[str, Tensor], sizes: list[Size], options: Pictures) -> Denoise:
    prediction = next(role for role in PREDICTIONS if role in by_role)
    fields: dict[str, Any] = {"solvers": ("euler", "heun"), "spacing": "even"}
    if prediction != "velocity":
        fields = {"solvers": ("dpm", "ddim", "euler"), "spacing": "trailing", "betas": _betas(options.betas)}
    return Denoise(
        prediction=prediction,  # type: ignore[arg-type]  # one of these
        **fields,
        steps=options.steps,
        guidance=options.guidance,
        most_guidance=MOST_GUIDANCE if options.guidance > 1 else 1.0,
        sizes=tuple(sizes[1:]),
    )


def _betas(text: str) -> Betas:
    schedule, *ends = text.split(":")
    try:
        start, end = map(float, ends)
        return Betas(schedule=schedule, start=start, end=end)  # type: ignore[arg-type]  # checked by it
    except ValueError as error:  # pydantic's is one
        raise DraftError(
            f"--betas {text!r} is not like linear:0.0001:0.02 or scaled_linear:0.00085:0.012"
        ) from error


def _case(graph: GraphDraft, image: Image) -> Case:
    generator, free = np.random.default_rng(0), {"batch": ROWS, "height": image.height, "width": image.width}
    trained = image.denoise.betas.trained - 1 if image.denoise and image.denoise.betas else 1
    made: dict[str, Array] = {}
    for each in graph.inputs:
        shape = [size if isinstance(size, int) else free.get(size, 1) for size in each.shape]
        drawn: Array = generator.standard_normal(shape)
        if each.role == "time":
            drawn = np.linspace(0, trained, ROWS)
        elif each.role in {"label", "class_id"}:
            drawn = np.arange(ROWS) % len(image.classes)
        elif each.role == "size":
            drawn = np.tile([image.height, image.width], (ROWS, 1))
        elif each.role == "guidance":
            drawn = np.full(ROWS, 2.0)
        made[each.name] = drawn.astype(each.dtype)
    return made


def _check_picture(graph: GraphDraft, found: Mapping[str, Array]) -> None:
    for each in graph.outputs:
        low, high = float(found[each.name].min()), float(found[each.name].max())
        if each.role == "output" and not -0.05 <= low <= high <= 1.05:
            raise DraftError(
                f"{each.name} has values from {low:.2g} to {high:.2g}, where a picture's are from 0 to 1: end the graph with them there"
            )
