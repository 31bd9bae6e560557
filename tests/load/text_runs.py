"""Text requests to an engine in this process, timed token by token. What the text benchmarks share; knows no peer and no HTTP."""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from deployments.config import HostConfig
from deployments.messages import Complete
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from service.loadtest.environment import describe

VOCABULARY = 49_152
"""Token ids of prompts are drawn below this: the benchmark's model has so many."""

SAMPLED: dict[str, Any] = {
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 50,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
}
GREEDY: dict[str, Any] = {"temperature": 0.0}


@dataclass(frozen=True, slots=True)
class Case:
    """So many streams at once, each with its own prompt of so many tokens, continued by so many."""

    streams: int
    prompt: int
    tokens: int = 64
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class Rates:
    """What one run of a case gave, in tokens per second and seconds.

    `decode` counts what came after the last stream's first token; `whole` everything, prompts' time included.
    """

    decode: float
    whole: float
    first: float


@dataclass(frozen=True, slots=True)
class Timed:
    """When the tokens of one stream came, in seconds since an instant that all of a run's streams share."""

    sent: float
    came: list[float]
    tokens: tuple[int, ...]
    text: str
    cached: int = 0

    @property
    def first(self) -> float:
        """Seconds from sending to the first token."""
        return self.came[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Seconds between one token and the next."""
        return [after - before for before, after in zip(self.came, self.came[1:], strict=False)]


def rates(came: Sequence[Sequence[float]], began: float = 0.0) -> Rates:
    """Of the times at which each stream's tokens came."""
    started = max(times[0] for times in came)
    ended = max(times[-1] for times in came)
    later = sum(time > started for times in came for time in times)
    total = sum(len(times) for times in came)
    # One token each: there is nothing after the first.
    decode = later / (ended - started) if later else total / (ended - began)
    return Rates(decode, total / (ended - began), median(times[0] for times in came) - began)


def medians(runs: Sequence[Rates]) -> Rates:
    """Each figure's median."""
    return Rates(*(median(getattr(run, name) for run in runs) for name in ("decode", "whole", "first")))


def prompt(length: int, seed: int) -> tuple[int, ...]:
    """Token ids that no other seed gives."""
    drawn = np.random.default_rng(seed).integers(1, VOCABULARY, length)
    return tuple(int(token) for token in drawn)


def request(model: str, ids: tuple[int, ...], tokens: int, **fields: Any) -> Complete:
    """Exactly so many tokens, nothing kept of earlier prompts unless said."""
    base = Complete(model, (ids,), max_tokens=tokens, ignore_eos=True, reuse_prefix=False)
    return replace(base, **fields)


async def timed(studio: Studio, asked: Complete) -> Timed:
    """One request, read to its end."""
    sent = perf_counter()
    came: list[float] = []
    ids: list[int] = []
    pieces: list[str] = []
    cached = 0
    async for delta in studio.stream(asked):
        # Tokens that came together came at one time.
        came += [perf_counter()] * len(delta.token_ids)
        ids += delta.token_ids
        pieces.append(delta.text)
        cached = delta.usage.cached_tokens if delta.usage else cached
    return Timed(sent, came, tuple(ids), "".join(pieces), cached)


async def together(studio: Studio, asked: Sequence[Complete]) -> list[Timed]:
    """All requests at once."""
    return list(await asyncio.gather(*(timed(studio, each) for each in asked)))


async def run(studio: Studio, model: str, case: Case, *, seed: int = 0) -> Rates:
    """One run of a case."""
    began = perf_counter()
    fields = SAMPLED if case.sampled else GREEDY
    asked = [
        request(model, prompt(case.prompt, 1000 * seed + number), case.tokens, seed=number, **fields)
        for number in range(case.streams)
    ]
    return rates([each.came for each in await together(studio, asked)], began)


@contextlib.contextmanager
def opened(store: Path, models: Sequence[str], **fields: Any) -> Iterator[tuple[Studio, Metrics]]:
    """A studio with two threads for each model, closed at the end."""
    metrics = Metrics(CollectorRegistry())
    config = HostConfig.model_validate(
        {"store": str(store), "models": list(models), "threads": 2, "device": "cpu"} | fields
    )
    studio = open_studio(config, metrics)
    try:
        yield studio, metrics
    finally:
        studio.close()


def table(title: str, columns: Sequence[str], *, words: int = 1) -> Table:
    """A plain table; all but the first `words` columns hold numbers."""
    made = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < words else "right", no_wrap=True)
    return made


def judged(value: float, aim: float | None, *, least: bool = True, form: str = ".2f") -> str:
    """A figure, green where it meets its aim and red where not; `least`: the aim is a lower bound."""
    shown = format(value, form)
    if aim is None:
        return shown
    met = value >= aim if least else value <= aim
    return f"[{'green' if met else 'red'}]{shown}[/]"


def report(tables: Sequence[Table], lines: Sequence[Any], path: Path | None) -> None:
    """Print the tables; write the lines (dataclasses) with the machine they were measured on."""
    console = Console(highlight=False, width=140)
    for each in tables:
        console.print(each)
    if path:
        figures = {"environment": describe(), "lines": [asdict(line) for line in lines]}
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
