"""Requests of pictures to score, in every form the service reads, and the bare graph that scores them.

What the item benchmarks share; knows no peer and no HTTP.
"""

import base64
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import orjson

from deployments.pictures import encode
from model_store.manifest import Graph, Manifest
from model_store.session import Array, open_graph
from model_store.store import Package
from tests.load import image_runs

SHIPPED: Final = "fashion-ae"
FORMS: Final = ("nested", "all digits", "base64", "picture")
"""Nested lists of four decimals and of all that float32 has, base64 of float32, and a PNG."""


def package_at(folder: Path | None) -> Package:
    """The package in a folder of a store; None: the newest shipped autoencoder. Raises PackageError."""
    return image_runs.package_at(folder, SHIPPED)


def scoring_graph(held: Manifest) -> tuple[str, Graph]:
    """The graph that scores run: the first that computes the default score."""
    role = f"score.{held.scoring.default}" if held.scoring else ""
    return next(
        (name, held.graphs[name])
        for name in ("score", "encode", "reconstruct")
        if name in held.graphs and any(each.role == role for each in held.graphs[name].outputs)
    )


def pictures(held: Manifest, count: int, seed: int = 0) -> Array:
    """Bright spots on black, 256 shades: float32 [count, channels, height, width] in [0, 1], no two alike."""
    channels, height, width = map(int, scoring_graph(held)[1].inputs[0].shape[1:])
    random = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    down, right, size = random.uniform(0.2, 0.8, (3, count, channels, 1, 1))
    spots = np.exp(-(((rows - down) ** 2 + (columns - right) ** 2) / (0.05 * size)))
    noisy = spots * random.uniform(0.7, 1, spots.shape)
    shades: Array = (noisy * 255).round().astype(np.float32)
    return shades / np.float32(255)


def item(pixels: Array, form: str) -> dict[str, Any]:
    """One picture [channels, height, width] as an item on the wire."""
    if form == "picture":
        return {"image": base64.b64encode(encode(pixels)).decode()}
    if form == "base64":
        data = base64.b64encode(pixels.astype("<f4").tobytes()).decode()
        return {"tensor": {"shape": pixels.shape, "data": data}}
    if form == "all digits":
        return {"tensor": {"data": orjson.loads(orjson.dumps(pixels, option=orjson.OPT_SERIALIZE_NUMPY))}}
    rounded = pixels.astype(np.float64).round(4)
    return {"tensor": {"data": (rounded.ravel() if form == "flat" else rounded).tolist()}}


def body(held: Manifest, form: str, count: int, seed: int = 0) -> bytes:
    """A request of so many items; `flat`: numbers in one list."""
    items = [item(each, form) for each in pictures(held, count, seed)]
    return orjson.dumps({"model": held.name, "input": items})


class Bare:
    """The scoring graph without a server, its memory bound in place as the engine binds it."""

    def __init__(self, package: Package, threads: int = 1) -> None:
        self._held = package.manifest
        name, self._graph = scoring_graph(package.manifest)
        self._session = open_graph(package, name, threads=threads)

    def score(self, items: Array) -> list[float]:
        """The default score of each."""
        role = f"score.{self._held.scoring.default}" if self._held.scoring else ""
        [output] = [each.name for each in self._graph.outputs if each.role == role]
        [scores] = self._session.run({self._graph.inputs[0].name: items}, [output])
        return [float(score) for score in scores]

    def rate(self, items: int, seconds: float) -> float:
        """Items per second in runs of so many, one after the other, after one for warmth."""
        [source] = self._graph.inputs
        outputs = {
            each.name: np.zeros((items, *map(int, each.shape[1:])), each.dtype)
            for each in self._graph.outputs
        }
        binding = self._session.bind({source.name: pictures(self._held, items)}, outputs)
        binding.run()
        runs, began = 0, perf_counter()
        while (passed := perf_counter() - began) < seconds:
            binding.run()
            runs += 1
        return runs * items / passed
