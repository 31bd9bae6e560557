"""Kilobyte encoders: a text's vector is the mean of its bytes' own vectors, so that a test can say what is right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from tests.graphs import Array, Sketch, build
from tests.packages import VOCABULARY, byte_tokenizer

WIDTH: Final = 4
TABLE: Final = np.stack(
    [np.sin(np.arange(VOCABULARY) * (place + 1)) for place in range(WIDTH)], axis=1
).astype(np.float32)
"""The vector of every byte."""


def encoder(
    folder: Path,
    *,
    name: str = "tiny-encoder",
    classes: Sequence[str] = (),
    context: int = 32,
    prefix: Sequence[int] = (),
    suffix: Sequence[int] = (),
    scale: float = 1.0,
) -> Path:
    """`embedding`: the mean of the bytes' vectors, of length 1. With `classes`: `probability`, the softmax of its start.

    Padding is masked by its place, whatever tokens stand there. A `scale` that is not finite spoils every answer.
    """
    sketch = Sketch()
    ids = sketch.input("input_ids", "int64", "batch", "time")
    length = sketch.input("length", "int32", "batch")
    places = sketch("Cast", _places(sketch, ids), to=TensorProto.INT32)
    real = sketch("Less", places, sketch("Unsqueeze", length, sketch.constant([1], "int64")))
    weight = sketch("Unsqueeze", sketch("Cast", real, to=TensorProto.FLOAT), sketch.constant([2], "int64"))
    vectors = sketch("Mul", sketch("Gather", sketch.constant(TABLE, "float32"), ids), weight)
    mean = sketch("ReduceSum", vectors, sketch.constant([1], "int64"), keepdims=0)
    mean = sketch("Mul", mean, sketch.constant(scale, "float32"))
    if classes:
        first = sketch("Slice", mean, *(sketch.constant([each], "int64") for each in (0, len(classes), 1)))
        sketch("Softmax", first, axis=1, into=["probability"])
        sketch.output("probability", "float32", "batch", len(classes))
    else:
        norm = sketch("ReduceL2", mean, sketch.constant([1], "int64"), keepdims=1)
        sketch("Div", mean, norm, into=["embedding"])
        sketch.output("embedding", "float32", "batch", WIDTH)
    feeds: dict[str, Array] = {
        "input_ids": np.array([[97, 98, 99], [100, 0, 0]], np.int64),
        "length": np.array([3, 1], np.int32),
    }
    part: dict[str, Any] = {"tokenizer": "tokenizer.json", "vocabulary": VOCABULARY, "context": context}
    fields = {
        "task": "text-classification" if classes else "feature-extraction",
        "family": "transformer",
        "capabilities": ["classify"] if classes else ["embed"],
        "encoder": part | {"prefix": list(prefix), "suffix": list(suffix), "classes": list(classes)},
    }
    files = {"tokenizer.json": byte_tokenizer().to_str().encode()}
    return build(folder, name, "1", fields, {"encode": (sketch, feeds)}, files)


def vector(tokens: bytes) -> Array:
    """What the encoder says of a text."""
    mean = TABLE[list(tokens)].sum(0)
    unit: Array = mean / np.linalg.norm(mean)
    return unit


def _places(sketch: Sketch, ids: str) -> str:
    time = sketch("Gather", sketch("Shape", ids), sketch.constant(1, "int64"), axis=0)
    numbers = sketch("Range", sketch.constant(0, "int64"), time, sketch.constant(1, "int64"))
    return sketch("Unsqueeze", numbers, sketch.constant([0], "int64"))
