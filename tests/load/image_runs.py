"""Requests for pictures made in steps, and the bare graph that makes them. What the image benchmarks share; knows no peer and no HTTP."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from uvicorn.loops.auto import auto_loop_factory

from deployments.image.painting import DENOISE, Painter
from deployments.messages import Draw
from deployments.metrics import Metrics
from deployments.studio import Studio
from model_store.manifest import Manifest, Tensor
from model_store.session import Array, open_graph
from model_store.store import Package, Store, shipped
from tests.load.text_runs import opened

T = TypeVar("T")

SHIPPED: Final = "fashion-flow"
MIXED_STEPS: Final = (4, 8, 12, 16, 20, 24, 28, 32)
GUIDANCE: Final = 3.0
"""Of every other request of a mix, where the model can be guided so far."""


def arguments(doc: str | None, rounds: int | None = 5) -> argparse.ArgumentParser:
    """Options that all image benchmarks have; `rounds` by default, None: it has none."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--package", type=Path, help=f"package folder, <name>/<version> (default: {SHIPPED})")
    made.add_argument("--threads", type=int, default=2, help="of the model")
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--json", type=Path, help="file for the figures")
    return made


def package_at(folder: Path | None, name: str = SHIPPED) -> Package:
    """The package in a folder of a store; None: the newest shipped one of this name. Raises PackageError."""
    if folder is None:
        return Store(str(shipped())).open(name)
    name, version = folder.resolve().parts[-2:]
    return Store(str(store_of(folder.resolve()))).open(name, version)


def store_of(folder: Path) -> Path:
    """The store a package's folder is in."""
    return folder.parent.parent


@contextmanager
def studio_of(package: Package, *, slots: int = 16, threads: int = 2) -> Iterator[tuple[Studio, Metrics]]:
    """A studio with this package alone."""
    held = package.manifest
    models = [f"{held.name}:{held.version}"]
    with opened(store_of(package.folder), models, slots=slots, threads=threads) as both:
        yield both


def run(work: Coroutine[Any, Any, T]) -> T:
    """On an event loop like the server's."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(work)


# -- requests ----------------------------------------------------------------------------------------------------------


def draw(held: Manifest, seed: int, **fields: Any) -> Draw:
    """A picture of one of the model's classes, of some words, or of what it draws; as the model does it unless said."""
    classes = held.image.classes if held.image else ()
    words = held.image is not None and held.image.prompt
    prompt = classes[seed % len(classes)] if classes else str(seed) if words else None
    return replace(Draw(held.name, prompt, seed=seed), **fields)


def mixed(held: Manifest, seed: int) -> list[Draw]:
    """Eight requests, each with steps of its own, every other one guided."""
    part = Painter(held).denoise
    return [
        draw(
            held,
            seed + place,
            steps=min(steps, part.most_steps),
            guidance=min(GUIDANCE, part.most_guidance) if place % 2 else 1.0,
        )
        for place, steps in enumerate(MIXED_STEPS)
    ]


def rows_of(held: Manifest, asked: Draw) -> int:
    """Rows of a run that a request's pictures take: two each where they are guided."""
    painter = Painter(held)
    guided = painter.guidance(asked.guidance) > 1 and not painter.distilled
    return asked.n * (2 if guided else 1)


async def seconds(work: Awaitable[object]) -> float:
    """How long it took."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def one_by_one(studio: Studio, asked: Sequence[Draw]) -> None:
    """Each when the one before is done."""
    for each in asked:
        await studio.call(each)


async def together(studio: Studio, asked: Sequence[Draw]) -> None:
    """All requests at once."""
    await asyncio.gather(*(studio.call(each) for each in asked))


# -- the graph alone ---------------------------------------------------------------------------------------------------


class Bare:
    """The graph without a server, its memory bound in place as the engine binds it."""

    def __init__(self, package: Package, threads: int) -> None:
        self._held = package.manifest
        self._graph = package.manifest.graphs[DENOISE]
        self._session = open_graph(package, DENOISE, threads=threads)

    def seconds(self, rows: int, runs: int) -> float:
        """Of so many runs of so many rows, one after the other, after one for warmth."""
        inputs = {each.name: made_up(self._held, each, rows) for each in self._graph.inputs}
        [answer] = self._graph.outputs
        binding = self._session.bind(inputs, {answer.name: made_up(self._held, answer, rows)})
        binding.run()
        began = time.perf_counter()
        for _ in range(runs):
            binding.run()
        return time.perf_counter() - began


def made_up(held: Manifest, tensor: Tensor, rows: int) -> Array:
    """Memory for rows of an input or output of `denoise`. What numbers are in it takes no part in how long a run is."""
    latent = tensor.role in ("latent", Painter(held).denoise.prediction)
    length = held.image.prompt[0].length if held.image and held.image.prompt else 1
    sizes = [size if isinstance(size, int) else length for size in tensor.shape[1:]]
    shape = (rows, *(Painter(held).latent if latent else sizes))
    if tensor.dtype.startswith("float"):
        return np.random.default_rng(0).standard_normal(shape).astype(tensor.dtype)
    return np.zeros(shape, tensor.dtype)
