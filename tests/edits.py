"""A kilobyte package that changes pictures in one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.graphs import Sketch, build
from tests.packages import image_fields

TASKS = ("inpaint", "colorize", "upscale", "denoise")


def editor(
    folder: Path,
    *,
    name: str = "tiny-edit",
    channels: int = 3,
    size: int = 8,
    fixed: bool = False,
    tasks: Sequence[str] = TASKS,
    **part: Any,
) -> Path:
    """Makes up the negative of what is masked, and darkens everything by a hundredth for each place of the task in `tasks`.

    Of any height and width unless `fixed`. `part` adds to that part of the manifest: pictures of at most 32 pixels a side.
    """
    sides: tuple[int | str, int | str] = (size, size) if fixed else ("height", "width")
    sketch, draw = Sketch(), np.random.default_rng(0)
    picture = sketch.input("input", "float32", "batch", channels, *sides)
    task = sketch("Cast", sketch.input("task", "int64", "batch"), to=TensorProto.FLOAT)
    feeds = {
        "input": draw.random((2, channels, size, size), np.float32),
        "task": np.array([0, len(tasks) - 1]),
    }
    dark = sketch("Mul", task, sketch.constant(-0.01, "float32"))
    shown = sketch("Add", picture, sketch("Unsqueeze", dark, sketch.constant([1, 2, 3], "int64")))
    if "inpaint" in tasks:
        mask = sketch.input("mask", "float32", "batch", 1, *sides)
        negative = sketch("Sub", sketch.constant(1.0, "float32"), picture)
        change = sketch("Mul", mask, sketch("Sub", negative, picture))
        shown = sketch("Add", shown, change)
        feeds["mask"] = np.zeros((2, 1, size, size), np.float32)
    sketch("Identity", shown, into=["output"])
    sketch.output("output", "float32", "batch", channels, *sides)
    fields = {
        "task": "image-to-image",
        "family": "autoencoder",
        "capabilities": ["edit_image"],
        "image": image_fields(channels, size) | {"edit": {"tasks": list(tasks), "largest": 32, **part}},
    }
    return build(folder, name, "1", fields, {"edit": (sketch, feeds)})
