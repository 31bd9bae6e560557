"""A kilobyte package that makes pictures in steps, by a net of random weights, of a class or of a text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from tests.graphs import Array, Sketch, build
from tests.packages import CLASSES, VOCABULARY, byte_tokenizer, image_fields

_WIDTH: Final = 16


def store(folder: Path) -> Path:
    """A store with one of each kind: tiny-flow, sized-, half-, text-, latent-, unguided- and told-flow, and two diffusion models."""
    flow(folder)
    flow(folder, name="sized-flow", varying=True)
    flow(folder, name="half-flow", half=True)
    flow(folder, name="text-flow", text=True)
    flow(folder, name="latent-flow", decoded=True)
    flow(folder, name="unguided-flow", denoise={"most_guidance": 1.0})
    flow(folder, name="told-flow", told=True)
    betas = {"schedule": "scaled_linear", "start": 0.00085, "end": 0.012}
    for prediction in ("epsilon", "v_prediction"):
        diffusion = {
            "prediction": prediction,
            "solvers": ["ddim", "euler", "dpm"],
            "spacing": "leading",
            "betas": betas,
            "offset": 1,
        }
        flow(folder, name=f"{prediction.replace('_', '-')}-diffusion", denoise=diffusion)
    return folder


def flow(
    folder: Path,
    *,
    name: str = "tiny-flow",
    version: str = "1",
    channels: int = 3,
    size: int = 8,
    classes: Sequence[str] = CLASSES,
    text: bool = False,
    decoded: bool = False,
    varying: bool = False,
    half: bool = False,
    told: bool = False,
    denoise: Mapping[str, Any] | None = None,
) -> Path:
    """A convolution of the latent, moved by the time and by the class, or by a text's `context`: its first place and its last.

    `text`: instead of classes, read by a graph `condition`, byte by byte. `varying`: of any height and width, of which
    16x8 is one more. `decoded`: the latent has half as many places a side, and a graph `decode` doubles them.
    `told`: what the server says of size and guidance. `denoise` changes fields of that part of the manifest: Euler and Heun,
    4 steps, guidance up to 10.
    """
    part: dict[str, Any] = {
        "prediction": "velocity",
        "solvers": ["euler", "heun"],
        "spacing": "even",
        "steps": 4,
        "most_steps": 64,
        "most_guidance": 10.0,
        "sizes": [[2 * size, size]] if varying else [],
        "reduction": 2 if decoded else 1,
        **(denoise or {}),
    }
    side = size // part["reduction"]
    latent: tuple[int | str, ...] = ("batch", channels, *(("height", "width") if varying else (side, side)))
    dtype = "float16" if half else "float32"
    graphs = {
        "denoise": _denoiser(
            latent, dtype, part["prediction"], side, classes=0 if text else len(classes), text=text, told=told
        )
    }
    files: dict[str, bytes] = {}
    if text:
        graphs["condition"] = _condition()
        files["tokenizer.json"] = byte_tokenizer().to_str().encode()
    if decoded:
        graphs["decode"] = _doubler(latent, side)
    prompt = {"tokenizer": "tokenizer.json", "length": 12, "pad": 0, "count": "length"}
    fields = {
        "task": "image-generation",
        "family": "flow",
        "capabilities": ["generate_image", "edit_image", "encode", "decode", "interpolate"],
        "image": image_fields(channels, size)
        | {"classes": [] if text else list(classes), "denoise": part, "prompt": [prompt] if text else []},
    }
    return build(folder, name, version, fields, graphs, files)


def _denoiser(
    latent: tuple[int | str, ...],
    dtype: str,
    prediction: str,
    side: int,
    *,
    classes: int,
    text: bool,
    told: bool,
) -> tuple[Sketch, dict[str, Array]]:
    draw, sketch, channels = np.random.default_rng(0), Sketch(), int(latent[1])
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    seen = sketch("Cast", sketch.input("latent", dtype, *latent), to=TensorProto.FLOAT)
    moment = sketch.input("time", "float32", "batch")
    moment = sketch("Unsqueeze", moment, sketch.constant([1], "int64"))
    weights = [draw.standard_normal(shape) for shape in ((1, _WIDTH), (_WIDTH, channels))]
    hidden = sketch("Tanh", sketch("MatMul", moment, sketch.constant(weights[0], "float32")))
    feeds: dict[str, Array] = {
        "latent": draw.standard_normal((2, channels, side, side)).astype(dtype),
        "time": np.array([0, 0.5], np.float32),
    }
    shown = hidden
    if classes:
        table = sketch.constant(draw.standard_normal((classes + 1, _WIDTH)), "float32")
        shown = sketch("Gather", table, sketch.input("label", "int64", "batch"))
        feeds["label"] = np.array([0, classes], np.int64)
    if text:
        context = sketch.input("context", "float32", "batch", "tokens", _WIDTH)
        # Not their mean: ONNX Runtime rounds sums over a middle axis otherwise where the batch is 1.
        ends = [sketch("Gather", context, sketch.constant(place, "int64"), axis=1) for place in (0, -1)]
        shown = sketch("Add", *ends)
        feeds["context"] = draw.standard_normal((2, 3, _WIDTH)).astype(np.float32)
    if told:
        far = sketch("Unsqueeze", sketch.input("guidance", "float32", "batch"), sketch.constant([1], "int64"))
        large = sketch(
            "ReduceMax", sketch.input("size", "float32", "batch", 2), sketch.constant([1], "int64")
        )
        shown = sketch("Add", shown, sketch("Add", far, large))
        feeds |= {"guidance": np.array([1, 2], np.float32), "size": np.full((2, 2), 8, np.float32)}
    bias = sketch("MatMul", sketch("Add", hidden, shown), sketch.constant(weights[1], "float32"))
    bias = sketch("Unsqueeze", bias, sketch.constant([2, 3], "int64"))
    kernel = sketch.constant(draw.standard_normal((channels, channels, 3, 3)) / 4, "float32")
    mixed = sketch("Conv", seen, kernel, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    sketch("Cast", sketch("Tanh", sketch("Add", mixed, bias)), to=kind, into=[prediction])
    sketch.output(prediction, dtype, *latent)
    return sketch, feeds


def _condition() -> tuple[Sketch, dict[str, Array]]:
    sketch = Sketch()
    text = sketch.input("text", "int64", "batch", "time")
    length = sketch("Cast", sketch.input("length", "int32", "batch"), to=TensorProto.FLOAT)
    table = sketch.constant(np.random.default_rng(1).standard_normal((VOCABULARY, _WIDTH)), "float32")
    length = sketch("Unsqueeze", length, sketch.constant([1, 2], "int64"))
    length = sketch("Add", length, sketch.constant(1.0, "float32"))
    sketch("Div", sketch("Gather", table, text), length, into=["context"])
    sketch.output("context", "float32", "batch", "tokens", _WIDTH)
    feeds: dict[str, Array] = {
        "text": np.array([[97, 98], [99, 0]], np.int64),
        "length": np.array([2, 1], np.int32),
    }
    return sketch, feeds


def _doubler(latent: tuple[int | str, ...], side: int) -> tuple[Sketch, dict[str, Array]]:
    sketch = Sketch()
    code = sketch.input("latent", "float32", *latent)
    half = sketch.constant(0.5, "float32")
    bright = sketch("Add", sketch("Mul", code, half), half)
    scales = sketch.constant([1, 1, 2, 2], "float32")
    sketch("Resize", bright, "", scales, into=["output"], mode="nearest")
    doubled = [2 * each if isinstance(each, int) else f"out_{each}" for each in latent[2:]]
    sketch.output("output", "float32", *latent[:2], *doubled)
    codes: Array = np.linspace(-1, 1, 2 * int(latent[1]) * side**2, dtype=np.float32)
    return sketch, {"latent": codes.reshape(2, int(latent[1]), side, side)}
