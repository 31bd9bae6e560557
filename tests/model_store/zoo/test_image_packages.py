"""What the shipped image packages promise: the measured quality, their size, and bytes that do not depend on the batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model_store.manifest import Graph
from model_store.session import Session, choose_device, open_graph
from model_store.store import Store, shipped
from model_store.zoo.baselines import BASELINES
from model_store.zoo.fashion import SIDE
from model_store.zoo.tiles_damage import TASKS

GRAPHS = [
    (name, graph)
    for name in Store(shipped()).names()
    if (manifest := Store(shipped()).manifest(name)).image
    for graph in manifest.graphs
]
LARGEST_BYTES = {
    "fashion-ae": 1_500_000,
    "textures-ae": 1_500_000,
    "fashion-pca": 500_000,
    "fashion-knn": 1_000_000,
    "fashion-vae": 3_000_000,
    "fashion-gan": 4_000_000,
    "fashion-flow": 4_000_000,
    "fashion-realism": 1_500_000,
    "tiles-flow": 10_000_000,
    "tiles-edit": 3_500_000,
}


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(shipped())


def quality(store: Store, name: str) -> dict[str, float]:
    return {figure: each.value for figure, each in store.manifest(name).quality.items()}


def feeds(graph: Graph, count: int) -> dict[str, npt.NDArray[Any]]:
    generator = np.random.default_rng(0)
    values: dict[str, npt.NDArray[Any]] = {}
    for each in graph.inputs:
        sizes = {"batch": count, "height": SIDE, "width": SIDE}
        shape = [sizes[size] if isinstance(size, str) else size for size in each.shape]
        if each.dtype == "float32":
            values[each.name] = generator.random(shape, np.float32)
        else:  # a class, a task, a token or how many there are
            values[each.name] = generator.integers(0, 4, shape).astype(each.dtype)
    return values


def rows(values: Mapping[str, npt.NDArray[Any]], chosen: slice) -> dict[str, npt.NDArray[Any]]:
    return {name: each[chosen] for name, each in values.items()}


def opened(store: Store, name: str, graph: str) -> Session:
    return open_graph(store.open(name), graph, device=choose_device("cpu"), threads=1)


@pytest.mark.parametrize(("name", "graph"), GRAPHS)
def test_a_rows_bytes_do_not_depend_on_its_batch(store: Store, name: str, graph: str) -> None:
    session, described = opened(store, name, graph), store.manifest(name).graphs[graph]
    outputs = [each.name for each in described.outputs]
    together = feeds(described, 16)
    expected = session.run(together, outputs)
    for chosen in (slice(0, 1), slice(15, 16), slice(3, 11), slice(0, 5)):
        for found, whole in zip(session.run(rows(together, chosen), outputs), expected, strict=True):
            assert np.array_equal(found, whole[chosen])


@pytest.mark.parametrize(("name", "limit"), LARGEST_BYTES.items())
def test_packages_are_small(store: Store, name: str, limit: int) -> None:
    assert sum(each.bytes for each in store.manifest(name).files.values()) < limit


def test_the_autoencoder_finds_what_is_unlike_one_class(store: Store) -> None:
    figure = store.manifest("fashion-ae").quality["one_class_auroc.fused"]
    assert figure.baseline is not None
    assert figure.value >= 0.93 > figure.baseline > 0.92


@pytest.mark.parametrize("name", ["fashion-ae", "fashion-vae", "textures-ae"])
def test_maps_show_where_defects_are(store: Store, name: str) -> None:
    assert quality(store, name)["defects.pixel_auroc"] >= 0.9


@pytest.mark.parametrize("name", ["fashion-ae", "fashion-vae", "textures-ae"])
def test_fitted_detectors_stand_beside_each_auroc(store: Store, name: str) -> None:
    figures = store.manifest(name).quality
    for figure in (each for key, each in figures.items() if "auroc." in key):
        assert figure.note is not None
        assert all(baseline in figure.note for baseline in BASELINES)


@pytest.mark.parametrize("name", ["fashion-ae", "fashion-vae", "textures-ae"])
def test_drift_of_latents_is_watched_from_the_beginning(store: Store, name: str) -> None:
    scoring = store.manifest(name).scoring
    assert scoring is not None
    assert scoring.latents is not None


@pytest.mark.parametrize(("name", "scores"), [("fashion-ae", 6), ("fashion-vae", 7), ("fashion-realism", 1)])
def test_thresholds_hold_on_images_that_nobody_has_seen(store: Store, name: str, scores: int) -> None:
    rates = {
        figure: value
        for figure, value in quality(store, name).items()
        if figure.startswith("false_positive_rate.")
    }
    assert len(rates) == scores
    assert all(0.005 < rate < 0.02 for rate in rates.values())


def test_samples_of_the_gan_are_taken_for_what_was_asked(store: Store) -> None:
    found = quality(store, "fashion-gan")
    assert found["class_accuracy"] >= 0.85
    assert found["coverage"] > 0.8
    judge = store.manifest("fashion-gan").quality["class_accuracy"].baseline
    assert judge is not None
    assert judge >= 0.9


def test_the_vae_stands_beside_the_gan(store: Store) -> None:
    vae = store.manifest("fashion-vae").quality
    assert vae["feature_distance"].baseline == store.manifest("fashion-gan").quality["feature_distance"].value
    assert vae["elbo"].baseline is not None
    assert vae["elbo"].value > vae["elbo"].baseline


def test_the_flow_is_nearer_to_real_images_than_both_within_eight_steps(store: Store) -> None:
    found = quality(store, "fashion-flow")
    others = [quality(store, name)["feature_distance"] for name in ("fashion-gan", "fashion-vae")]
    assert found["feature_distance"] < min(others)
    assert found["feature_distance.4_steps"] < min(others)
    assert found["class_accuracy"] >= 0.9
    assert found["coverage"] > 0.9


def test_the_discriminator_sees_what_the_autoencoder_takes_for_clothes(store: Store) -> None:
    found = store.manifest("fashion-realism").quality
    smooth = found["auroc.vae"]
    assert smooth.baseline is not None
    assert smooth.value > 0.95 > smooth.baseline
    assert found["auroc.noise"].value > 0.95
    assert found["auroc.inverted"].value > 0.95


def test_pictures_of_words_nobody_has_put_together_are_recognised(store: Store) -> None:
    found = store.manifest("tiles-flow").quality
    real = found["caption_top5_of_50"].baseline
    assert real is not None
    assert real > 0.9  # the judge knows real tiles
    assert found["caption_top5_of_50"].value >= 0.6
    assert found["copies"].value < 0.01


def test_every_edit_is_better_than_the_obvious_one(store: Store) -> None:
    found = store.manifest("tiles-edit").quality
    assert len(found) == 3 * len(TASKS)
    # Grey tiles take on a tint: where each picture counts by its own decibels, the recipe says so.
    del found["colorize_psnr_of_each"]
    for name, figure in found.items():
        assert figure.baseline is not None
        assert figure.value > figure.baseline, name


def test_noise_is_not_scored_as_clothes(store: Store) -> None:
    """The one picture that surely is none."""
    for name, graph in (
        ("fashion-ae", "reconstruct"),
        ("fashion-vae", "reconstruct"),
        ("fashion-realism", "score"),
    ):
        manifest = store.manifest(name)
        assert manifest.scoring is not None
        session = opened(store, name, graph)
        values = feeds(manifest.graphs[graph], 4)
        for score, calibration in manifest.scoring.calibrations.items():
            # Noise has no place that stands out, and a VAE finds usual latents for anything.
            if score == "peak" or (name, score) == ("fashion-vae", "mahalanobis"):
                continue
            (found,) = session.run(values, [f"score.{score}"])
            assert (found > calibration.threshold).all()
