"""`/metrics`: the exact state of this process and of every replica behind it, in one Prometheus text.

Works on the text itself, so that no figure is parsed and printed again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from deployments.messages import Exposition, ModelClient
from service.answers import Document
from service.call import Call


class Scrape:
    """Answers the scraper."""

    def __init__(self, models: ModelClient, registry: CollectorRegistry, replica: str) -> None:
        self._models = models
        self._registry = registry
        self._replica = replica

    async def metrics(self, call: Call) -> Document:  # noqa: ARG002 - every route takes its call
        """Metrics of all replicas in Prometheus' text format, each sample with its `replica`."""
        others = await self._models.expositions()
        own = Exposition(self._replica, generate_latest(self._registry).decode())
        return Document(merge([own, *others]).encode(), CONTENT_TYPE_PLAIN_0_0_4.encode())


@dataclass(slots=True)
class _Family:
    """One metric of all processes: what it is, said once, and every sample."""

    about: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merge(expositions: Iterable[Exposition]) -> str:
    """One text in which every sample carries a `replica` label and every family stands in one piece.

    Each text must be in the format's order, as `generate_latest` writes it: a family's comments, then its samples.
    """
    families: dict[str, _Family] = {}
    for exposition in expositions:
        label = f'replica="{_escape(exposition.replica)}"'
        family = _Family()
        for line in exposition.text.split("\n"):  # `splitlines` would split label values, too
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, name, _ = f"{line} ".split(" ", 3)
                family = families.setdefault(name, _Family())
                family.about.setdefault(kind, line)
            elif line and not line.startswith("#"):
                family.samples.append(_labelled(line, label))
    lines = [line for family in families.values() for line in (*family.about.values(), *family.samples)]
    return "".join(f"{line}\n" for line in lines)


def _labelled(sample: str, label: str) -> str:
    """`name{a="b"} 1` or `name 1`, with one more label."""
    brace, space = sample.find("{"), sample.find(" ")
    if brace < 0 or space < brace:
        return f"{sample[:space]}{{{label}}}{sample[space:]}"
    comma = "" if sample[brace + 1] == "}" else ","
    return f"{sample[: brace + 1]}{label}{comma}{sample[brace + 1 :]}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
