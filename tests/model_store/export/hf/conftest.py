"""One tiny Llama, exported once for all tests that look at its graph."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_store.export.hf import job as jobs
from model_store.export.hf.exported import Exported
from tests.model_store.export.hf.tiny import exported, save


@dataclass(frozen=True)
class Llama:
    """Its directory, what the process found, and the graph without sampler."""

    directory: Path
    report: jobs.Report
    graph: Exported

    @property
    def references(self) -> list[jobs.Reference]:
        return jobs.read_references(self.graph.path.parent)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    folder = tmp_path_factory.mktemp("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        directory = save("llama", folder / "model")
        report = exported(directory, folder / "work", steps=16)
    return Llama(directory, report, Exported(folder / "work" / jobs.GRAPH))
