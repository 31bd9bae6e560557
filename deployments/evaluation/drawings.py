"""Evaluates models that draw, through the engine that serves them: what is drawn beside the data, in a net's features."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.data import Items
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.items import item_shape, run_items
from deployments.evaluation.overlap import NEIGHBOURS, overlap
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Found, Grid, Progress, Tile
from deployments.evaluation.speed import timings
from deployments.messages import Draw, Output
from deployments.pictures import decode
from deployments.studio import Studio
from model_store.device import Device
from model_store.manifest import Manifest
from model_store.package import Package

_TOGETHER: Final = 16
_SHOWN: Final = 24
_RUNS: Final = 5


async def draw(
    studio: Studio, manifest: Manifest, count: int, seed: int, progress: Progress
) -> tuple[list[bytes], list[str]]:
    """So many pictures as PNG, of every class in turn, and the class of each."""
    classes: Sequence[str] = (manifest.image.classes if manifest.image else ()) or ("",)
    pictures: list[bytes] = []
    names: list[str] = []
    while len(pictures) < count:
        name = classes[len(names) // _TOGETHER % len(classes)]
        wanted = min(_TOGETHER, count - len(pictures))
        outputs = await _drawn(studio, manifest.name, name, wanted, seed + len(pictures))
        pictures += [each.image or b"" for each in outputs]
        names += [name] * wanted
        progress("Drawing", len(pictures), count)
    return pictures, names


async def _drawn(studio: Studio, model: str, name: str, n: int, seed: int) -> tuple[Output, ...]:
    return (await studio.call(Draw(model, name or None, n=n, seed=seed))).outputs


def features(
    net: Package, items: NDArray[np.float32], device: Device, progress: Progress
) -> NDArray[np.float64]:
    """What the net's `latent` is of each item, [items, width]."""
    found = run_items(net, items, ["latent"], device, progress).get("latent")
    if found is None:
        raise EvaluationError(f"{net.manifest.name} gives no latents: no feature net")
    return found.reshape(len(found), -1).astype(np.float64)


def as_read(net: Package, pictures: Sequence[bytes]) -> NDArray[np.float32]:
    """Encoded pictures as the net takes them."""
    shape = item_shape(net.manifest)
    if shape is None or net.manifest.image is None:
        raise EvaluationError(f"{net.manifest.name} reads no pictures: no feature net")
    channels, height, width = shape
    return np.stack([decode(each, channels, width, height, "picture") for each in pictures])


def compare(
    pictures: Sequence[bytes], real: Items, net: Package, key: str, device: Device, progress: Progress
) -> dict[str, Figure]:
    """Pictures beside the data, which is in the net's shape already."""
    if min(len(pictures), len(real.values)) <= NEIGHBOURS + 1:
        raise EvaluationError(f"{NEIGHBOURS + 2} pictures are the least, of the data and of what is drawn")
    made = features(net, as_read(net, pictures), device, progress)
    found = features(net, real.values, device, progress)
    progress("Comparing", 0, 0)
    name = f"{net.manifest.name}:{net.manifest.version}"
    return overlap(found, made, name, key)


def shown(pictures: Sequence[bytes], names: Sequence[str]) -> Grid:
    """Some of what was drawn, in the order of drawing: nothing is picked out."""
    spread = np.unique(np.linspace(0, len(pictures) - 1, min(_SHOWN, len(pictures))).astype(int))
    tiles = tuple(Tile(pictures[place], names[place]) for place in spread)
    return Grid("Drawn", "Evenly spread over what was drawn; none is picked out.", tiles)


async def drawing_speed(studio: Studio, manifest: Manifest, progress: Progress) -> dict[str, Figure]:
    """Time of a picture, PNG included."""
    figures: dict[str, Figure] = {}
    classes = (manifest.image.classes if manifest.image else ()) or ("",)
    for batch in (1, _TOGETHER):
        progress(f"Timing {batch} at once", 0, 0)
        await _drawn(studio, manifest.name, classes[0], batch, 0)
        seconds = []
        for run in range(_RUNS if batch > 1 else 4 * _RUNS):
            began = time.perf_counter()
            await _drawn(studio, manifest.name, classes[0], batch, run)
            seconds.append(time.perf_counter() - began)
        measured = timings(np.array(seconds), batch, "pictures", "in the engine, PNG included")
        figures |= {f"drawing_{name}": each for name, each in measured.items()}
    return figures


async def evaluate_drawings(
    studio: Studio, manifest: Manifest, samples: int, seed: int, progress: Progress
) -> tuple[list[bytes], Found]:
    """Pictures, and what can be said of them without data."""
    pictures, names = await draw(studio, manifest, samples, seed, progress)
    found = Found(await drawing_speed(studio, manifest, progress), grids=[shown(pictures, names)])
    return pictures, found
