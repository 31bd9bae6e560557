import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_model

from model_store.export.draft import Draft
from model_store.zoo import fashion, fashion_ae
from model_store.zoo.fashion_scoring import HELD_IMAGES
from model_store.zoo.scores import Mahalanobis
from tests.model_store.zoo.drafted import run_drafted
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion

BRIEF = fashion_ae.Recipe(steps=3, one_class_steps=2, batch=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path) -> fashion_ae.Autoencoder:
    return fashion_ae.train(data, Steps(), BRIEF)


@pytest.fixture(scope="module")
def told() -> Steps:
    return Steps()


@pytest.fixture(scope="module")
def drafted(
    data: Path, model: fashion_ae.Autoencoder, told: Steps, tmp_path_factory: pytest.TempPathFactory
) -> Draft:
    return fashion_ae.draft(model, data, tmp_path_factory.mktemp("work"), told, BRIEF)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_it_redraws_by_its_latent(model: fashion_ae.Autoencoder) -> None:
    shown = images(3)
    latent = model.encode(shown)
    assert latent.shape == (3, fashion_ae.Config.latent)
    redrawn = model.decode(latent)
    assert redrawn.shape == shown.shape
    assert 0 <= redrawn.min() <= redrawn.max() <= 1
    assert torch.equal(model(shown), redrawn)


@torch.no_grad()
def test_scores_belong_to_the_reconstruction(model: fashion_ae.Autoencoder) -> None:
    shown = images(3)
    redrawn, latent, error_map, *values = model.reconstruct(shown)
    scores = dict(zip(fashion_ae.SCORES, values, strict=True))
    error = (shown - redrawn).abs()
    assert torch.equal(latent, model.encode(shown))
    assert torch.equal(error_map, model.peak.blurred(error))
    assert torch.allclose(scores["l1"], error.flatten(1).mean(1))
    assert torch.allclose(scores["l2"], error.flatten(1).square().mean(1))
    assert torch.allclose(scores["ssim"], 1 - model.similarity(shown, redrawn).flatten(1).mean(1))
    assert torch.equal(scores["peak"], error_map.flatten(1).amax(1))
    assert torch.equal(scores["mahalanobis"], model.distance(latent))
    assert torch.equal(scores["fused"], model.fused(torch.stack([scores["ssim"], scores["mahalanobis"]], 1)))


@torch.no_grad()
def test_what_is_usual_is_learned_with_the_weights(data: Path, model: fashion_ae.Autoencoder) -> None:
    """Of the images it was trained on: distances are from their latents, and their fused scores have a mean of 0."""
    shown, _ = fashion.read_split(data, "train").cut(HELD_IMAGES)
    scores = fashion_ae.scores(model, shown.images)
    latents = model.encode(shown.images)
    assert torch.allclose(scores["mahalanobis"], Mahalanobis(latents)(latents), rtol=1e-3)
    assert scores["fused"].mean() == pytest.approx(0, abs=1e-3)


def test_no_layer_is_a_product_of_whole_maps(model: fashion_ae.Autoencoder) -> None:
    """Convolutions are computed image by image, so numbers do not depend on the batch."""
    assert not any(isinstance(each, torch.nn.Linear) for each in model.modules())


def test_training_tells_every_step_and_comes_ready(data: Path) -> None:
    steps = Steps()
    assert not fashion_ae.train(data, steps, BRIEF).training
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]


def test_training_is_the_same_again(data: Path, model: fashion_ae.Autoencoder) -> None:
    again = fashion_ae.train(data, Steps(), BRIEF).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_training_learns(data: Path) -> None:
    steps = Steps()
    fashion_ae.fit(fashion.read_split(data, "train").images, steps, fashion_ae.Recipe(steps=25, batch=16))
    assert steps.figures["cross-entropy"] < 0.9 * math.log(2)  # where it starts


def test_training_leaves_the_calibration_images_out(data: Path, tmp_path: Path) -> None:
    """Other held images, same weights."""
    other = write_tiny_fashion(tmp_path / "data")
    everything = fashion.read_split(other, "train")
    learned, _ = everything.cut(HELD_IMAGES)
    by_hand = fashion_ae.fit(learned.images, Steps(), BRIEF).state_dict()
    trained = fashion_ae.train(data, Steps(), BRIEF).state_dict()
    assert all(torch.equal(by_hand[name], trained[name]) for name in trained)


def test_each_class_is_told_from_the_others(drafted: Draft, told: Steps) -> None:
    assert told.seen == [(step, 20) for step in range(1, 21)]
    for name in fashion_ae.SCORES:
        found = drafted.quality[f"one_class_auroc.{name}"]
        assert found.baseline is not None
        assert 0 <= found.value <= 1
        assert found.baseline > 0.9  # plain rectangles are easy for what is fitted


def test_a_draft_says_how_good_the_model_is(
    drafted: Draft, model: fashion_ae.Autoencoder, data: Path
) -> None:
    assert (drafted.name, drafted.family, drafted.provenance.steps) == ("fashion-ae", "autoencoder", 3)
    test = fashion.read_split(data, "t10k").images
    scores = fashion_ae.scores(model, test)
    assert drafted.quality["reconstruction_ssim"].value == pytest.approx(
        1 - scores["ssim"].mean().item(), abs=1e-4
    )
    assert drafted.quality["reconstruction_l1"].value == pytest.approx(scores["l1"].mean().item(), abs=1e-4)
    for name in ("reconstruction_ssim", "defects.pixel_auroc", "defects.aupro"):
        assert drafted.quality[name].baseline_name == "PCA with 32 components"
    assert {"false_positive_rate.l1", "defects.auroc.peak"} <= set(drafted.quality)


def test_a_draft_is_calibrated_on_images_that_were_held_out(
    drafted: Draft, model: fashion_ae.Autoencoder, data: Path
) -> None:
    assert drafted.scoring is not None
    assert drafted.scoring.default == "fused"
    assert tuple(drafted.scoring.calibrations) == fashion_ae.SCORES
    scores = {each.scores for each in drafted.scoring.calibrations.values()}
    assert set(drafted.files) == scores | {drafted.scoring.latents}
    _, held = fashion.read_split(data, "train").cut(HELD_IMAGES)
    kept = np.load(io.BytesIO(drafted.files["calibration/ssim.npy"]), allow_pickle=False)
    assert np.allclose(kept, fashion_ae.scores(model, held.images)["ssim"].sort().values)
    latents = np.load(io.BytesIO(drafted.files["calibration/latents.npy"]), allow_pickle=False)
    assert np.allclose(latents, model.encode(held.images).detach(), atol=1e-5)


@pytest.mark.parametrize("name", ["reconstruct", "decode"])
def test_graphs_compute_what_they_declare(name: str, drafted: Draft) -> None:
    assert len(run_drafted(drafted.graphs[name])) == 2


def test_a_drafts_weights_are_the_models(drafted: Draft, model: fashion_ae.Autoencoder) -> None:
    weights = drafted.graphs["decode"].weights
    assert weights is not None
    loaded = fashion_ae.Autoencoder().eval()
    load_model(loaded, weights)
    assert torch.equal(loaded(images(2)), model(images(2)))
