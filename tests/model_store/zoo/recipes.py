"""What the tests of text recipes share: a log of what is reported, and the package that comes of a draft."""

from collections.abc import Mapping
from pathlib import Path

from model_store.export.draft import Draft
from model_store.export.publish import publish
from model_store.store import Package, Store


class Log:
    """Keeps what a recipe reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, dict[str, float]]] = []

    def __call__(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        self.seen.append((step, total, dict(figures)))


def published(draft: Draft, folder: Path) -> Package:
    """Publish into a store in `folder` and open."""
    publish(draft, str(folder / "store"))
    return Store(folder / "store").open(draft.name)
