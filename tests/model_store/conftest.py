"""Sealed packages to publish, and a store in memory to publish them to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests import packages


@pytest.fixture(scope="session")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sealed packages in no store: `a1`, `a2`, `a10` and `b1`."""
    folder = tmp_path_factory.mktemp("drafts")
    made = {
        f"a{version}": packages.generator(folder, name="a", version=version) for version in ("1", "2", "10")
    }
    return made | {"b1": packages.generator(folder, name="b", version="1", latent=2)}


@pytest.fixture
def memory() -> Iterator[str]:
    """Address of an empty store in this process's memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://shelf/models"
    MemoryFileSystem.store.clear()
