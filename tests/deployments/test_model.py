import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.errors import QueueFull
from deployments.image.painting import Condition
from deployments.metrics import Metrics
from deployments.model import FlowModel, Model, OneShotModel, TextModel, card_of, open_model, threads_of
from model_store.errors import BrokenFiles
from model_store.package import Package
from model_store.session import Device, Session, open_graph
from model_store.store import Store
from tests import packages
from tests.flows import flow


def package(store: Path, name: str, **changes: Any) -> Package:
    opened = Store(str(store)).open(name)
    return Package(opened.folder, opened.manifest.model_copy(update=changes))


def load(opened: Package, registry: CollectorRegistry | None = None, **config: Any) -> Model:
    return open_model(opened, HostConfig(**config), Device(), Metrics(registry or CollectorRegistry()))


READ: dict[str, Any] = {"size": "8x8", "classes": [], "input_shape": [1, 8, 8], "resize": "stretch"}


@pytest.mark.parametrize(
    ("name", "kind", "limits"),
    [
        ("tiny-text", TextModel, {"context": 256, "vocabulary": 256}),
        (
            "tiny-ae",
            OneShotModel,
            READ | {"scores": {"l1": 0.095, "peak": 0.095}},
        ),
        ("tiny-gan", OneShotModel, {"size": "8x8", "classes": ["circle", "square", "cross"]}),
        (
            "tiny-style",
            OneShotModel,
            {"size": "8x8", "classes": ["circle", "square", "cross"], "truncation": 1.0},
        ),
        (
            "tiny-score",
            OneShotModel,
            READ | {"scores": {"bright": -0.1}},
        ),
    ],
)
def test_a_package_becomes_a_model_with_a_card(
    tiny: Path, name: str, kind: type, limits: dict[str, Any]
) -> None:
    opened = package(tiny, name)
    model = load(opened)
    assert isinstance(model, kind)
    card = card_of(model, "studio")
    assert (card.name, card.version, card.host, card.licence) == (name, "1", "studio", "Apache-2.0")
    assert card.limits == limits
    assert card.capabilities == opened.manifest.capabilities
    assert card.quality == {"accuracy": {"value": 1.0, "higher_is_better": True, "data": "made up"}}
    assert card.created == 1767225600  # 2026-01-01


def test_a_model_that_makes_pictures_in_steps(tmp_path: Path) -> None:
    flow(tmp_path, text=True, varying=True)
    model = load(package(tmp_path, "tiny-flow"), slots=3, max_waiting_pixel_steps=1000)
    assert isinstance(model, FlowModel)
    assert (model.engine.scheduler.capacity, model.engine.scheduler.max_waiting_tokens) == (3, 1000)
    assert card_of(model, "studio").limits == {
        "size": "8x8",
        "sizes": ["8x8", "16x8"],
        "classes": [],
        "steps": 64,
        "guidance_scale": 10.0,
        "solvers": ["euler", "heun"],
        "prompt_tokens": 12,
    }


async def test_a_line_of_pictures_is_bounded_in_pixel_steps(tmp_path: Path) -> None:
    flow(tmp_path)
    model = load(package(tmp_path, "tiny-flow"), slots=1, max_waiting_pixel_steps=64 * 4 * 3)
    assert isinstance(model, FlowModel)

    def submit(**asked: Any) -> None:
        works = model.requests._painter.paintings(Condition({}), **asked)
        model.engine.submit(works, costs=[work.cost for work in works])

    for _ in range(3):
        submit(steps=4)
    with pytest.raises(QueueFull):
        submit(steps=4, guidance=1.0, n=2)


def test_loading_shows_in_the_metrics(tiny: Path) -> None:
    registry = CollectorRegistry()
    load(package(tiny, "tiny-ae"), registry)
    info = {
        "model": "tiny-ae",
        "version": "1",
        "task": "reconstruction",
        "family": "autoencoder",
        "device": "cpu",
    }
    assert registry.get_sample_value("atelier_model_info", info) == 1
    assert (registry.get_sample_value("atelier_model_load_seconds", {"model": "tiny-ae"}) or 0) > 0


def test_limits_of_the_host_are_honoured(tiny: Path) -> None:
    text = load(package(tiny, "tiny-text"), slots=3, max_waiting=5)
    assert (text.engine.scheduler.capacity, text.engine.scheduler.max_waiting) == (3, 5)
    assert load(package(tiny, "tiny-ae"), max_batch=7).engine.scheduler.capacity == 7


def test_an_engine_is_not_started_by_loading(tiny: Path) -> None:
    assert not load(package(tiny, "tiny-ae")).engine.alive


@pytest.mark.parametrize(
    ("threads", "cpus", "megabytes", "expected"),
    [(0, 1.0, 12, 1), (0, 0.1, 12, 1), (0, 4.0, 12, 4), (0, 4.0, 1, 1), (2, 8.0, 12, 2), (2, 8.0, 1, 2)],
)
def test_large_graphs_get_the_replicas_share_of_threads(
    threads: int, cpus: float, megabytes: int, expected: int
) -> None:
    assert threads_of(HostConfig(threads=threads, num_cpus=cpus), megabytes << 20) == expected


@pytest.mark.parametrize(("threads", "expected"), [(0, 3), (2, 2)])
def test_a_denoiser_gets_every_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, expected: int
) -> None:
    flow(tmp_path, decoded=True)
    given: dict[str, int] = {}

    def opened(package: Package, graph: str, *, threads: int, **settings: Any) -> Session:
        given[graph] = threads
        return open_graph(package, graph, threads=1, **settings)

    monkeypatch.setattr("deployments.model.open_graph", opened)
    load(package(tmp_path, "tiny-flow"), threads=threads, num_cpus=3)
    assert given == {"denoise": expected, "decode": threads or 1}


def test_a_model_that_cannot_reconstruct_or_draw_has_no_such_part(tiny: Path) -> None:
    drawn, scored = load(package(tiny, "tiny-gan")), load(package(tiny, "tiny-ae"))
    assert isinstance(drawn, OneShotModel)
    assert isinstance(scored, OneShotModel)
    assert (drawn.autoencoding, scored.drawing) == (None, None)


@pytest.mark.parametrize("mean", [np.zeros(3, np.float32), np.zeros((2, 4), np.float32), np.zeros(4)])
def test_a_mean_style_is_one_of_its_styles(tmp_path: Path, mean: np.ndarray[Any, Any]) -> None:
    packages.styled(tmp_path, mean=mean)
    with pytest.raises(BrokenFiles, match=r"is of no style \[4\]"):
        load(package(tmp_path, "tiny-style"))


def test_a_text_model_needs_a_text_section(tiny: Path) -> None:
    opened = package(tiny, "tiny-text", text=None)
    with pytest.raises(ValueError, match="no text section"):
        TextModel(opened, HostConfig(), Device(), Metrics(CollectorRegistry()))


@pytest.mark.parametrize("file", ["tokenizer.json", "step.onnx"])
def test_a_file_changed_after_the_package_was_opened_is_refused(
    tiny: Path, tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "tiny-text" / "1"
    shutil.copytree(tiny / "tiny-text" / "1", folder)
    opened = package(tmp_path, "tiny-text")
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(BrokenFiles):
        load(opened)
