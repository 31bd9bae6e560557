"""Whole evaluations of kilobyte packages."""

import json
import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.evaluate import Plan, evaluate
from deployments.evaluation.items import run_items
from deployments.evaluation.record import Evaluation
from deployments.evaluation.shown import Found
from deployments.messages import Score, TensorItem
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.device import Device
from model_store.store import Store
from tests import edits, flows, packages


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = packages.store(tmp_path_factory.mktemp("store"))
    packages.scorer(folder, mapped=True)
    packages.text(folder, name="led-text", prefix=[32])
    edits.editor(folder)
    flows.flow(folder, name="text-flow", text=True, channels=1)
    return Store(folder)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 grey pictures; a quarter of them have a white corner."""
    x = np.random.default_rng(0).uniform(0.1, 0.5, (40, 8, 8)).astype(np.float32)
    masks = np.zeros(x.shape, bool)
    masks[::4, :3, :3] = True
    x[masks] = 1
    file = tmp_path_factory.mktemp("data") / "items.npz"
    np.savez(file, X=x, y=masks.any((1, 2)), masks=masks)
    return file


def run(store: Store, name: str, plan: Plan) -> tuple[Evaluation, Found]:
    said = []
    record, found = evaluate(store.open(name), plan, lambda *each: said.append(each))
    assert said
    assert Evaluation.model_validate_json(record.model_dump_json()) == record
    return record, found


def test_an_autoencoder_with_labels_and_masks(store: Store, items: Path) -> None:
    record, found = run(store, "tiny-ae", Plan(items, device="cpu"))
    values = {name: each.value for name, each in record.figures.items()}
    assert values["auroc.l1"] == values["auroc.peak"] == values["best_f1.peak"] == 1
    assert values["pixel_auroc"] == pytest.approx(1, abs=1e-3)
    assert values["reconstruction_psnr"] == 100  # normal ones are redrawn as they are
    assert values["latency_p50"] > 0
    assert next(iter(record.figures)) == "auroc.l1"  # the default score comes first
    assert [plot.title for plot in record.plots][:3] == ["ROC", "Precision and recall", "Scores"]
    assert [grid.title for grid in found.grids] == ["Anomalies found", "Anomalies missed", "False alarms"]
    assert all(each.png.startswith(b"\x89PNG") for grid in found.grids for each in grid.tiles)
    assert record.data.groups == {"anomaly": 10, "good": 30}
    assert record.model.name == "tiny-ae"


async def test_a_score_of_several_draws_is_the_one_that_is_served(tmp_path: Path) -> None:
    packages.autoencoder(tmp_path, name="tiny-vae", variational=True, samples=3)
    package, values = (
        Store(tmp_path).open("tiny-vae"),
        np.random.default_rng(0).random((40, 1, 8, 8), np.float32),
    )
    found = run_items(package, values, ["score.l1", "score.peak"], Device("cpu"), lambda *_: None)
    config = HostConfig(store=str(tmp_path), threads=1)
    with closing(open_studio(config, Metrics(CollectorRegistry()))) as studio:
        items = tuple(TensorItem(each.ravel().tolist()) for each in values)
        served = [await studio.call(Score("tiny-vae", items, score=name)) for name in ("l1", "peak")]
    for name, reply in zip(("l1", "peak"), served, strict=True):
        np.testing.assert_allclose(
            found[f"score.{name}"], [each.score or 0.0 for each in reply.outputs], rtol=1e-6
        )


def test_without_labels_there_are_alarms(store: Store, items: Path, tmp_path: Path) -> None:
    with np.load(items) as arrays:
        np.savez(tmp_path / "x.npz", X=arrays["X"])
    record, found = run(store, "tiny-vae", Plan(tmp_path / "x.npz", device="cpu"))
    assert record.figures["alarms.peak"].value == 0.25
    assert "auroc.l1" not in record.figures
    assert [grid.title for grid in found.grids] == ["Highest scores", "Lowest scores"]


def test_a_package_that_only_scores(store: Store, items: Path) -> None:
    record, _ = run(store, "tiny-score", Plan(items, device="cpu"))
    assert {"auroc.bright", "aupro"} <= record.figures.keys()
    assert not any(name.startswith("reconstruction") for name in record.figures)


def test_drawings_are_compared_in_the_features_of_another_package(store: Store, items: Path) -> None:
    record, found = run(
        store, "tiny-gan", Plan(items, features=store.open("tiny-ae"), samples=20, device="cpu")
    )
    names = ("frechet", "precision", "recall", "density", "coverage", "vendi", "drawing_throughput_16")
    assert set(names) <= record.figures.keys()
    assert record.settings["features"] == "tiny-ae:1"
    assert {each.caption for each in found.grids[0].tiles} == set(packages.CLASSES)
    again, _ = run(store, "tiny-gan", Plan(items, features=store.open("tiny-ae"), samples=20, device="cpu"))
    assert again.figures["frechet"] == record.figures["frechet"]


def test_words_are_drawn_as_the_data_has_them(store: Store, items: Path, tmp_path: Path) -> None:
    with np.load(items) as arrays:
        words = np.array(["red", "blue"])[np.arange(40) % 4 // 3]
        np.savez(tmp_path / "x.npz", X=arrays["X"], prompts=words)
    plan = Plan(tmp_path / "x.npz", features=store.open("tiny-ae"), samples=8, device="cpu")
    record, found = run(store, "text-flow", plan)
    assert record.settings["prompts"] == "the data's own"
    assert {each.caption for each in found.grids[0].tiles} == {"red", "blue"}
    assert 0 <= record.figures["prompt_agreement"].value <= 1


def test_pictures_are_damaged_and_put_right(store: Store, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(60, 196, (8, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", X=x)
    record, found = run(store, "tiny-edit", Plan(tmp_path / "x.npz", device="cpu"))
    tasks = ("inpaint", "colorize", "upscale", "denoise")
    assert {f"{task}_{name}" for task in tasks for name in ("psnr", "ssim")} <= record.figures.keys()
    assert record.figures["denoise_psnr"].value == pytest.approx(20, abs=1.5)  # as noisy as before
    assert "dB" in record.figures["denoise_psnr"].unit
    assert [grid.title for grid in found.grids] == [task.capitalize() for task in tasks]
    assert record.figures["drawing_latency_p50"].value > 0


@pytest.mark.parametrize("name", ["tiny-text", "tiny-attention", "led-text"])
def test_documents_longer_than_the_context(store: Store, tmp_path: Path, name: str) -> None:
    """After each letter the next one has a probability of about 0.91, so that a rising text costs few nats."""
    text = "".join(chr(33 + place % 90) for place in range(150))
    (tmp_path / "a.txt").write_text(text)
    record, found = run(store, name, Plan(tmp_path / "a.txt", samples=8, max_tokens=8, device="cpu"))
    nats = record.figures["nats_per_token"].value
    assert 0.02 < nats < 0.6
    assert record.figures["bits_per_byte"].value == pytest.approx(nats / math.log(2), rel=1e-4)
    assert record.figures["perplexity"].value == pytest.approx(math.exp(nats), rel=1e-4)
    assert {"distinct_1", "first_token_p50", "throughput_8"} <= record.figures.keys()
    assert found.passages[0].prompt == text[:32]


def test_answers_beside_right_ones(store: Store, tmp_path: Path) -> None:
    pairs = [{"prompt": "abc", "target": "defg"}, {"prompt": "mno", "target": ["x", "pqrs"]}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    record, found = run(store, "tiny-text", Plan(tmp_path / "p.jsonl", max_tokens=4, device="cpu"))
    assert record.figures["exact_match"].value == 1
    assert record.figures["chrf"].value == pytest.approx(100)
    assert [each.answer for each in found.passages] == ["defg", "pqrs"]


def test_what_cannot_be_evaluated_is_a_sentence(store: Store, items: Path, tmp_path: Path) -> None:
    for name, plan, said in (
        ("tiny-ae", Plan(tmp_path / "no"), "there is no "),
        ("tiny-gan", Plan(items), "name one with --features"),
        ("tiny-gan", Plan(items, features=store.open("tiny-gan")), "reads no pictures"),
        ("tiny-gan", Plan(items, features=store.open("tiny-score"), samples=8), "gives no latents"),
        ("tiny-gan", Plan(items, features=store.open("tiny-ae"), samples=3), "7 pictures are the least"),
        ("tiny-text", Plan(items), r"neither \.txt nor \.jsonl"),
    ):
        with pytest.raises(EvaluationError, match=said):
            evaluate(store.open(name), plan, lambda *_: None)
