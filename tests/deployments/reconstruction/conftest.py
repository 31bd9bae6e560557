"""A store of tables and series, and studios over it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import packages, records
from tests.deployments.conftest import Opened, OpenStudio


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    records.table(folder)
    records.table(folder, name="full-table", known=False, capabilities=["reconstruct", "score"])
    records.table(folder, name="noisy-table", noise=True)
    records.table(folder, name="told-table", contribution=True, unknown=True)
    fixed: dict[str, Any] = {"normalisation": "fixed"}
    records.series(folder, **fixed)
    records.series(folder, name="hops", hop=2, merge="mean", **fixed)
    records.series(folder, name="worst", merge="max", **fixed)
    records.series(folder, name="whole", padding="none", hop=2, **fixed)
    records.series(folder, name="gaps", known=True, normalisation="series")
    records.series(folder, name="pair", channels=2, padding="zero", normalisation="window")
    records.series(folder, name="calm", window=1, alarms={"hysteresis": 0.5, "cooldown": 3}, **fixed)
    packages.autoencoder(folder)
    return folder


@pytest.fixture
def open_recorded(recorded: Path) -> Iterator[OpenStudio]:
    opened: list[Opened] = []

    def open_some(*models: str, **config: Any) -> Opened:
        opened.append(Opened(recorded, {"models": models, **config}))
        return opened[-1]

    yield open_some
    for each in opened:
        each.studio.close()
