"""A text model whose steps are taken by the test: what shares a batch is decided here and not by threads."""

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Complete, TextDelta, TokenLogprob
from deployments.metrics import Metrics
from deployments.model import TextModel
from model_store.package import Package
from model_store.session import Device
from model_store.store import Store


class Reading:
    """One request being answered. `slow` readers leave their events unread."""

    def __init__(self, model: TextModel, request: Complete, *, slow: bool) -> None:
        self.ticket, self.rows = model.engine.submit(model.program.prepare(request))
        self.slow = slow
        self.deltas: list[TextDelta] = []

    async def read(self) -> None:
        while self.ticket.unread:
            self.deltas.append(await self.ticket.next())

    @property
    def open(self) -> bool:
        return sum(delta.finish is not None for delta in self.deltas) < len(self.rows)

    def of(self, row: int = 0) -> list[TextDelta]:
        return [delta for delta in self.deltas if delta.row == row]

    def text(self, row: int = 0) -> str:
        return "".join(delta.text for delta in self.of(row))

    def tokens(self, row: int = 0) -> list[int]:
        return [token for delta in self.of(row) for token in delta.token_ids]

    def scores(self, row: int = 0) -> list[TokenLogprob]:
        return [score for delta in self.of(row) for score in delta.logprobs]


class Driven:
    """Loads a package of a store without starting its engine's thread."""

    def __init__(self, store: Path, name: str, *, text: dict[str, Any] | None = None, **config: Any) -> None:
        package = Store(str(store)).open(name)
        if text and package.manifest.text:
            changed = package.manifest.text.model_copy(update=text)
            package = Package(package.folder, package.manifest.model_copy(update={"text": changed}))
        self.registry = CollectorRegistry()
        self.model = TextModel(package, HostConfig(**config), Device(), Metrics(self.registry))
        self.readings: list[Reading] = []

    def submit(self, *prompts: str | tuple[int, ...], slow: bool = False, **fields: Any) -> Reading:
        request = Complete(model="tiny", prompts=prompts, **{"temperature": 0.0, **fields})
        self.readings.append(Reading(self.model, request, slow=slow))
        return self.readings[-1]

    async def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.model.engine.step()
            await asyncio.sleep(0)
            for reading in self.readings:
                if not reading.slow:
                    await reading.read()

    async def finish(self) -> None:
        """Step until every request that is read is answered."""
        for _ in range(5000):
            if not any(reading.open for reading in self.readings if not reading.slow):
                return
            await self.step()
        raise TimeoutError("not answered after 5,000 steps")

    async def alone(self, *prompts: str | tuple[int, ...], **fields: Any) -> Reading:
        """Answer a request that has the model to itself."""
        reading = self.submit(*prompts, **fields)
        await self.finish()
        return reading

    def value(self, name: str, **labels: str) -> float:
        name_of_model = self.model.manifest.name
        return self.registry.get_sample_value(f"atelier_{name}", {"model": name_of_model, **labels}) or 0.0
