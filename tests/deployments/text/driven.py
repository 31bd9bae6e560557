"""A text model whose steps are taken by the test: what shares a batch is decided here and not by threads."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Complete, TextDelta, TokenLogprob
from deployments.metrics import Metrics
from deployments.model import TextModel
from model_store.package import Package
from model_store.session import choose_device
from model_store.state import copy
from model_store.store import Store


class Reading:
    """One request being answered. `slow` readers leave their events unread."""

    def __init__(self, model: TextModel, request: Complete, *, slow: bool) -> None:
        self.ticket, self.rows = model.engine.submit(model.prompts.prepare(request))
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
        self.model = TextModel(
            package, HostConfig(**config), choose_device(config.get("device", "cpu")), Metrics(self.registry)
        )
        self.readings: list[Reading] = []

    def submit(self, *prompts: str | tuple[int, ...], slow: bool = False, **fields: Any) -> Reading:
        request = Complete(prompts=prompts, **{"model": "tiny", "temperature": 0.0, **fields})
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

    def cancel(self, reading: Reading) -> None:
        """Its client has gone."""
        reading.slow = True
        self.model.engine.cancel(reading.ticket)

    def cached(self, slot: int, count: int) -> list[int]:
        """Tokens whose state a slot of an attention model holds: its cache is of the ids themselves."""
        inputs, _ = self.model.program._slots.bound(slot, 1)
        place = inputs["past_key_values.0.value"]
        content = np.empty(place.shape, place.dtype)
        copy(place, content)
        return [int(each) for each in content[0, 0, :count, 0]]

    def check_state(self) -> None:
        """Every live row and every kept prefix has in its slot what it is said to have."""
        program = self.model.program
        for row in self.model.engine.scheduler.live:
            assert self.cached(row.slot, row.work.fed) == list(row.work.tokens)
            assert row.slot not in program._slots.prefixes
        for slot, kept in program._slots.prefixes._kept.items():
            assert self.cached(slot, len(kept.tokens)) == kept.tokens.tolist()

    def value(self, name: str, **labels: str) -> float:
        name_of_model = self.model.manifest.name
        return self.registry.get_sample_value(f"atelier_{name}", {"model": name_of_model, **labels}) or 0.0
