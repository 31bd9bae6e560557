"""Tiny packages, made once, and ways to open them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.engine import Engine
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from tests import packages

OpenStudio = Callable[..., "Opened"]


class Opened:
    """A studio over the tiny packages, with its figures."""

    def __init__(self, store: Path, config: dict[str, Any]) -> None:
        self.registry = CollectorRegistry()
        self.studio: Studio = open_studio(
            HostConfig(store=str(store), device="cpu", **config), Metrics(self.registry)
        )

    def value(self, name: str, **labels: str) -> float:
        """A figure as it is exported, 0 before its first observation."""
        return self.registry.get_sample_value(f"atelier_{name}", labels) or 0.0

    def engine(self, model: str) -> Engine[Any, Any]:
        return self.studio._models[model].engine

    @contextmanager
    def before_steps(self, model: str, act: Callable[[], object]) -> Iterator[None]:
        """Do something in the engine's thread before each step of a model."""
        program = self.engine(model).program
        step = program.step

        def acting(rows: Any) -> Any:
            act()
            return step(rows)

        program.step = acting  # type: ignore[method-assign]
        try:
            yield
        finally:
            program.step = step  # type: ignore[method-assign]

    @contextmanager
    def held(self, model: str) -> Iterator[None]:
        """A model whose steps do not end before this does."""
        gate = threading.Event()
        with self.before_steps(model, lambda: gate.wait(10)):
            try:
                yield
            finally:
                gate.set()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one package of each kind, with room for 256 tokens; `loose-*` are less sure of what comes next,
    and of `adapted-*` too, which have two adapters."""
    folder = tmp_path_factory.mktemp("packages")
    for kind, attention in (("text", False), ("attention", True)):
        packages.text(folder, name=f"tiny-{kind}", attention=attention, context=256)
        packages.text(folder, name=f"loose-{kind}", attention=attention, context=256, sharpness=2.0)
        packages.text(
            folder,
            name=f"adapted-{kind}",
            attention=attention,
            context=256,
            sharpness=2.0,
            adapters=("twice", "thrice"),
        )
        packages.text(folder, name=f"ending-{kind}", attention=attention, context=256, eos_after=6)
    packages.autoencoder(folder)
    packages.autoencoder(folder, name="tiny-vae", variational=True)
    packages.autoencoder(folder, name="tiny-colour", channels=3)
    packages.generator(folder)
    packages.styled(folder)
    packages.scorer(folder)
    return folder


@pytest.fixture
def open_tiny(tiny: Path) -> Iterator[OpenStudio]:
    """Open some of the packages with some settings; closed when the test is over."""
    opened: list[Opened] = []

    def open_some(*models: str, **config: Any) -> Opened:
        opened.append(Opened(tiny, {"models": models, **config}))
        return opened[-1]

    yield open_some
    for each in opened:
        each.studio.close()
