"""Kilobyte packages of table rows and time series, as `tests/packages.py` makes those of text and pictures.

`table`  two numbers and a category; redraws every row as age 0.5 and income -0.5 deviations from the mean, colour red
`series` redraws a window as zeros, so that its score is the mean square of what is normalised
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.graphs import Array, Sketch, build, npy

AGE: Final = {
    "kind": "number", "name": "age", "unit": "years", "mean": 40.0, "deviation": 10.0, "minimum": 0.0, "maximum": 120.0,
    "error": 3.0,
}  # fmt: skip
INCOME: Final = {"kind": "number", "name": "income", "mean": 1000.0, "deviation": 100.0}
COLOUR: Final = {"kind": "category", "name": "colour", "categories": ["red", "green", "blue"]}
CENTRE: Final = (0.5, -0.5, 0.75, 0.25, 0.0)


def table(
    folder: Path,
    *,
    name: str = "tiny-table",
    version: str = "1",
    known: bool = True,
    noise: bool = False,
    contribution: bool = False,
    unknown: bool = False,
    **more: Any,
) -> Path:
    """`score.l2` is the mean square of what is known, less what it is redrawn as; the latent is the input.

    `known`: takes missing values, and redraws age with a tenth of how many features are known, so that hiding shows.
    `noise`: with a tenth of `noise` [1] in every column. `contribution`: says itself that only income counts.
    """
    colour = {**COLOUR, "unknown": unknown}
    size = 5 + unknown
    centre = np.array([*CENTRE, *[0.0] * unknown], np.float32)
    sketch = Sketch()
    source = sketch.input("input", "float32", "batch", size)
    zero = sketch("Mul", source, sketch.constant(0, "float32"))
    redrawn = sketch("Add", zero, sketch.constant(centre, "float32"))
    feeds: dict[str, Array] = {"input": np.linspace(-1, 1, 2 * size, dtype=np.float32).reshape(2, size)}
    axes = sketch.constant([1], "int64")
    if known:
        told = sketch("ReduceSum", sketch.input("known", "float32", "batch", 3), axes)
        first = sketch.constant(np.eye(size, dtype=np.float32)[0] / 10, "float32")
        redrawn = sketch("Add", redrawn, sketch("Mul", told, first))
        feeds["known"] = np.array([[1, 1, 1], [1, 0, 1]], np.float32)
    if noise:
        drawn = sketch("Mul", sketch.input("noise", "float32", "batch", 1), sketch.constant(0.1, "float32"))
        redrawn = sketch("Add", redrawn, drawn)
        feeds["noise"] = np.array([[0], [1]], np.float32)
    sketch("Identity", redrawn, into=["reconstruction"])
    error = sketch("Sub", source, redrawn)
    sketch("ReduceMean", sketch("Mul", error, error), axes, keepdims=0, into=["score.l2"])
    sketch("Identity", source, into=["latent"])
    sketch.output("reconstruction", "float32", "batch", size)
    sketch.output("score.l2", "float32", "batch")
    sketch.output("latent", "float32", "batch", size)
    if contribution:
        rows = sketch("Slice", source, sketch.constant([0], "int64"), sketch.constant([3], "int64"), axes)
        none = sketch("Mul", rows, sketch.constant(0, "float32"))
        sketch("Add", none, sketch.constant([-1, 2, 0], "float32"), into=["contribution"])
        sketch.output("contribution", "float32", "batch", 3)
    decode = Sketch()
    decode("Identity", decode.input("latent", "float32", "batch", size), into=["output"])
    decode.output("output", "float32", "batch", size)
    verbs = ["reconstruct", "score", "encode", "decode", "interpolate", "embed", *["impute"] * known]
    fields = {
        "task": "reconstruction",
        "family": "vae" if noise else "autoencoder",
        "capabilities": verbs,
        "table": {"features": [AGE, INCOME, colour]},
        "scoring": scoring("l2", 1.0),
    }
    graphs = {"reconstruct": (sketch, feeds), "decode": (decode, {"latent": feeds["input"]})}
    return build(folder, name, version, {**fields, **more}, graphs, calibration("l2"))


def series(
    folder: Path,
    *,
    name: str = "tiny-series",
    version: str = "1",
    window: int = 4,
    channels: int = 1,
    known: bool = False,
    **cut: Any,
) -> Path:
    """`score.l2` is the mean square of the window; `cut` says the rest of how series are cut. The latent is each channel's mean."""
    shape = ("batch", window, channels)
    sketch = Sketch()
    source = sketch.input("input", "float32", *shape)
    feeds: dict[str, Array] = {
        "input": np.linspace(-1, 1, 2 * window * channels, dtype=np.float32).reshape(2, window, channels)
    }
    seen = source
    if known:
        seen = sketch("Mul", source, sketch.input("known", "float32", *shape))
        feeds["known"] = np.ones((2, window, channels), np.float32)
    sketch("Mul", seen, sketch.constant(0, "float32"), into=["reconstruction"])
    sketch(
        "ReduceMean",
        sketch("Mul", seen, seen),
        sketch.constant([1, 2], "int64"),
        keepdims=0,
        into=["score.l2"],
    )
    sketch("ReduceMean", seen, sketch.constant([1], "int64"), keepdims=0, into=["latent"])
    sketch.output("reconstruction", "float32", *shape)
    sketch.output("score.l2", "float32", "batch")
    sketch.output("latent", "float32", "batch", channels)
    fields = {
        "task": "anomaly-detection",
        "family": "autoencoder",
        "capabilities": ["reconstruct", "score", "encode", "embed", *["impute"] * known],
        "series": {"channels": [{"name": f"channel {i}"} for i in range(channels)], "window": window, **cut},
        "scoring": scoring("l2", 1.0),
    }
    return build(folder, name, version, fields, {"reconstruct": (sketch, feeds)}, calibration("l2"))


def scoring(name: str, threshold: float) -> dict[str, Any]:
    own = {"scores": f"calibration/{name}.npy", "threshold": threshold, "quantile": 0.95, "data": "made up"}
    return {"default": name, "calibrations": {name: own}}


def calibration(name: str) -> dict[str, bytes]:
    return {f"calibration/{name}.npy": npy(np.linspace(0, 1, 99, dtype=np.float32))}
