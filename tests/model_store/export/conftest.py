"""The exporter's own processes, run inside the test's: each would import torch again."""

import importlib
import warnings
from collections.abc import Callable, Iterator

import pytest

from model_store.export import graph_process


def _inside(command: list[str], stderr: int, on_stage: Callable[[str], None]) -> int:
    module, *arguments = command[command.index("-m") + 1 :]
    status: int = importlib.import_module(module).main(arguments)
    return status


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(graph_process, "watch", _inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's and diffusers' own
        yield
