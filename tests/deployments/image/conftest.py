"""Models that make pictures in steps, and an engine whose steps the test takes."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.engine import Engine
from deployments.image.developing import Developing
from deployments.image.flow import Flow
from deployments.image.painting import Condition, Painted, Painter, Painting
from deployments.image.solvers import advance
from deployments.metrics import Metrics
from deployments.rows import Row, Ticket
from model_store.session import Array, open_graph
from model_store.store import Store
from tests import packages
from tests.flows import store

Request = list[Painting]


class Easel:
    """One of the tiny flow models."""

    def __init__(self, store: Path, name: str, capacity: int) -> None:
        package = Store(str(store)).open(name)
        self.manifest = package.manifest
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        graphs = self.manifest.graphs
        self.denoise = open_graph(package, "denoise")
        self.condition = open_graph(package, "condition") if "condition" in graphs else None
        decode = open_graph(package, "decode") if "decode" in graphs else None
        self.developing = Developing(self.manifest, decode)
        self.program = Flow(self.manifest, self.denoise, metrics, capacity=capacity, condition=self.condition)
        self.painter = Painter(self.manifest)
        self.engine: Engine[Painting, Painted] = Engine(name, self.program, metrics, max_waiting=500)

    def label(self, place: int) -> Condition:
        return Condition({"label": np.int64(place)})  # type: ignore[dict-item]

    def text(self, text: str) -> Condition:
        tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        return Condition({"text": tokens, "length": np.int32(len(tokens))})  # type: ignore[dict-item]

    def request(self, label: int = 0, **settings: Any) -> Request:
        """Pictures of a class, guided away from none."""
        return self.painter.paintings(self.label(label), self.label(len(packages.CLASSES)), **settings)

    def submit(self, works: Request) -> tuple[Ticket[Painted], list[Row[Painting, Painted]]]:
        return self.engine.submit(works, costs=[work.cost for work in works])

    async def step(self) -> None:
        self.engine.step()
        await asyncio.sleep(0)

    @property
    def busy(self) -> bool:
        return bool(self.engine.scheduler.waiting or self.engine.scheduler.live)

    async def paint(self, *requests: Request) -> list[list[Array]]:
        """Submit all at once, step until all are answered; the latents of each in order."""
        tickets = [self.submit(works)[0] for works in requests]
        while self.busy:
            await self.step()
        return [await finals(ticket, len(works)) for ticket, works in zip(tickets, requests, strict=True)]

    def value(self, name: str) -> float:
        labels = {"model": self.manifest.name, "graph": "denoise"}
        return self.registry.get_sample_value(f"atelier_{name}", labels) or 0.0

    def by_hand(self, work: Painting) -> Array:
        """The same picture by a loop around the graph, a row a run."""
        latent, memory = work.begin(), None
        for place, stage in enumerate(work.plan.stages[work.first :], work.first + 1):
            answers = []
            for condition in (work.condition, work.without):
                if condition is not None:
                    feeds = {
                        "latent": np.float32(stage.scale) * latent,
                        "time": stage.time,
                        **condition.feeds,
                    }
                    taken = {
                        each.name: np.asarray(feeds[each.role], each.dtype)[None]
                        for each in self.manifest.graphs["denoise"].inputs
                    }
                    answers.append(self.denoise.run(taken)[0][0].astype(np.float32))
            output = answers[0]
            if len(answers) == 2:
                output = answers[1] + np.float32(work.guidance) * (answers[0] - answers[1])
            latent, memory = advance(stage, latent, output, memory)
            latent = work.kept(latent, place)
        return latent


async def finals(ticket: Ticket[Painted], count: int) -> list[Array]:
    """Latents of a request's pictures; previews are passed over."""
    found: dict[int, Array] = {}
    while len(found) < count:
        event = await ticket.next()
        if event.final:
            assert event.place not in found
            found[event.place] = event.latent
    return [found[place] for place in range(count)]


OpenEasel = Callable[..., Easel]


@pytest.fixture(scope="session")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("flows"))


@pytest.fixture
def easel(flows: Path) -> OpenEasel:
    def open_easel(name: str = "tiny-flow", *, capacity: int = 16) -> Easel:
        return Easel(flows, name, capacity)

    return open_easel


def same(first: Sequence[Array], second: Sequence[Array]) -> bool:
    """Bit for bit."""
    return [each.tobytes() for each in first] == [each.tobytes() for each in second]
