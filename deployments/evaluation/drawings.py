"""Evaluates models that draw, through the engine that serves them: what is drawn beside the data, in a net's features."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.at_once import gathered
from deployments.evaluation.data import Items, chosen
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.items import item_shape, run_items
from deployments.evaluation.overlap import NEIGHBOURS, agreement, overlap
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Found, Grid, Progress, Tile, tile
from deployments.evaluation.speed import timings
from deployments.messages import Draw
from deployments.pictures import decode
from deployments.studio import Studio
from model_store.device import Device
from model_store.imaging import Image
from model_store.manifest import Manifest
from model_store.package import Package

TOGETHER: Final = 16
_SHOWN: Final = 24
_LEAST: Final = 3  # timed calls: a picture may take a minute
_MOST: Final = 20
_SECONDS: Final = 10


@dataclass(frozen=True)
class Drawn:
    """PNGs, what was asked for with each, and whose words these are."""

    pictures: Sequence[bytes]
    wanted: Sequence[str]
    whose: str


def prompts(image: Image, real: Items, count: int) -> tuple[list[str], str]:
    """What to ask for, picture by picture, and whose words these are: the data's own, if the model knows them."""
    known = {each.casefold() for each in image.classes}
    words: Sequence[str] = real.prompts
    if words and (image.prompt or (known and known.issuperset(each.casefold() for each in words))):
        words, whose = [words[place] for place in chosen(len(words), count)], "the data's own"
    elif image.classes:
        words, whose = image.classes, "every class equally often"
    else:
        words, whose = ("",), ""
    return [words[place % len(words)] for place in range(count)], whose


async def draw(
    studio: Studio, model: str, wanted: Sequence[str], seed: int, progress: Progress
) -> list[bytes]:
    """A PNG of each prompt, each by a seed of its own."""
    works = (studio.call(_request(model, prompt, seed + place)) for place, prompt in enumerate(wanted))
    replies = await gathered(works, len(wanted), TOGETHER, "Drawing", progress)
    return [each.outputs[0].image or b"" for each in replies]


def _request(model: str, prompt: str, seed: int) -> Draw:
    return Draw(model, prompt or None, seed=seed)


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
    drawn: Drawn, real: Items, net: Package, key: str, device: Device, progress: Progress
) -> dict[str, Figure]:
    """Pictures beside the data, which is in the net's shape already."""
    if min(len(drawn.pictures), len(real.values)) <= NEIGHBOURS + 1:
        raise EvaluationError(f"{NEIGHBOURS + 2} pictures are the least, of the data and of what is drawn")
    made = features(net, as_read(net, drawn.pictures), device, progress)
    found = features(net, real.values, device, progress)
    progress("Comparing", 0, 0)
    name = f"{net.manifest.name}:{net.manifest.version}"
    figures = overlap(found, made, name, key)
    words = set(real.prompts)
    if words.issuperset(drawn.wanted) and len(words) <= len(real.prompts) / 2:  # each has neighbours to find
        figures["prompt_agreement"] = agreement((found, real.prompts), (made, drawn.wanted), name, key)
    return figures


def shown(drawn: Drawn, real: Items) -> list[Grid]:
    """Some of what was drawn, and of the data, in their order: nothing is picked out."""
    words = real.prompts or ("",) * len(real.values)
    about = "Evenly spread over what was drawn; none is picked out."
    return [
        Grid(
            "Drawn",
            about,
            tuple(Tile(drawn.pictures[at], drawn.wanted[at]) for at in _spread(drawn.pictures)),
        ),
        Grid(
            "Data",
            "The same of the data.",
            tuple(tile(words[at], real.values[at]) for at in _spread(real.values)),
        ),
    ]


def _spread(many: Sequence[object] | NDArray[np.float32]) -> list[int]:
    places: list[int] = np.unique(np.linspace(0, len(many) - 1, min(_SHOWN, len(many))).astype(int)).tolist()
    return places


async def drawing_speed(studio: Studio, request: Draw, progress: Progress) -> dict[str, Figure]:
    """Time of a picture of this request, PNG included."""
    figures: dict[str, Figure] = {}
    for batch in (1, TOGETHER):
        progress(f"Timing {batch} at once", 0, 0)
        await studio.call(request)
        seconds = list[float]()
        while len(seconds) < _LEAST or (len(seconds) < _MOST and sum(seconds) < _SECONDS):
            began = time.perf_counter()
            several = (replace(request, seed=len(seconds) * batch + place) for place in range(batch))
            await asyncio.gather(*map(studio.call, several))
            seconds.append(time.perf_counter() - began)
        measured = timings(np.array(seconds), batch, "pictures", "in the engine, PNG included")
        figures |= {f"drawing_{name}": each for name, each in measured.items()}
    return figures


async def evaluate_drawings(
    studio: Studio, manifest: Manifest, real: Items, samples: int, seed: int, progress: Progress
) -> tuple[Drawn, Found]:
    """Pictures like the data, and what can be said of them without it."""
    if manifest.image is None:
        raise EvaluationError(f"{manifest.name} makes no pictures")
    wanted, whose = prompts(manifest.image, real, samples)
    drawn = Drawn(await draw(studio, manifest.name, wanted, seed, progress), wanted, whose)
    return drawn, Found(
        await drawing_speed(studio, _request(manifest.name, wanted[0], 0), progress), grids=shown(drawn, real)
    )
