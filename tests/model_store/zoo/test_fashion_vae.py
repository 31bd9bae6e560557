import math
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from model_store.export.draft import Draft
from model_store.zoo import fashion, fashion_judge, fashion_vae
from model_store.zoo.baselines import BASELINES
from model_store.zoo.fashion_scoring import HELD_IMAGES
from model_store.zoo.scores import Mahalanobis
from tests.model_store.zoo.drafted import run_drafted
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion

BRIEF = fashion_vae.Recipe(steps=2, batch=4)
LATENT = fashion_vae.Config.latent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path) -> fashion_vae.VariationalAutoencoder:
    return fashion_vae.train(data, Steps(), BRIEF)


@pytest.fixture(scope="module")
def drafted(
    data: Path, model: fashion_vae.VariationalAutoencoder, tmp_path_factory: pytest.TempPathFactory
) -> Draft:
    work = tmp_path_factory.mktemp("work")
    # A judge that is there already: nothing waits for one to be trained.
    fashion_judge.appoint(data, work, Steps(), fashion_judge.Recipe(steps=1, batch=8))
    return fashion_vae.draft(model, data, work, Steps(), BRIEF)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_no_noise_redraws_from_the_mean(model: fashion_vae.VariationalAutoencoder) -> None:
    shown = images(3)
    redrawn, mean, spread, *_ = model.reconstruct(shown, torch.zeros(3, LATENT))
    assert mean.shape == spread.shape == (3, LATENT)
    assert (spread > 0).all()
    assert torch.equal(redrawn, model.decode(mean))


@torch.no_grad()
def test_noise_moves_the_latent_by_its_spread(model: fashion_vae.VariationalAutoencoder) -> None:
    shown, noise = images(3), torch.randn(3, LATENT)
    redrawn, mean, spread, *_ = model.reconstruct(shown, noise)
    assert torch.allclose(redrawn, model.decode(mean + spread * noise), atol=1e-6)


@torch.no_grad()
def test_the_bound_is_likelihood_and_divergence(model: fashion_vae.VariationalAutoencoder) -> None:
    shown, noise = (images(3) > 0.5).float(), torch.randn(3, LATENT)
    _, mean, spread, _, *values = model.reconstruct(shown, noise)
    scores = dict(zip(fashion_vae.SCORES, values, strict=True))
    pixels = Bernoulli(logits=model.logits(mean + spread * noise)).log_prob(shown).sum(dim=(1, 2, 3))
    divergence = kl_divergence(Normal(mean, spread), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(scores["likelihood"], -pixels, rtol=1e-4)
    assert torch.allclose(scores["elbo"], divergence - pixels, rtol=1e-4)


@torch.no_grad()
def test_scores_belong_to_the_reconstruction(model: fashion_vae.VariationalAutoencoder) -> None:
    shown = images(3)
    redrawn, mean, _, error_map, *values = model.reconstruct(shown, torch.zeros(3, LATENT))
    scores = dict(zip(fashion_vae.SCORES, values, strict=True))
    error = (shown - redrawn).abs()
    assert torch.equal(error_map, model.peak.blurred(error))
    assert torch.allclose(scores["l1"], error.flatten(1).mean(1))
    assert torch.allclose(scores["l2"], error.flatten(1).square().mean(1))
    assert torch.allclose(scores["ssim"], 1 - model.similarity(shown, redrawn).flatten(1).mean(1))
    assert torch.equal(scores["peak"], error_map.flatten(1).amax(1))
    assert torch.equal(scores["mahalanobis"], model.distance(mean))


@torch.no_grad()
def test_only_the_likelihood_is_a_mean_over_draws(model: fashion_vae.VariationalAutoencoder) -> None:
    shown, noise = images(3), torch.Generator().manual_seed(0)
    found = fashion_vae.scores(model, shown)
    draws = [model(shown, torch.randn(3, LATENT, generator=noise))[3] for _ in range(10)]
    assert torch.allclose(found["likelihood"], torch.stack(draws).mean(0), rtol=1e-5)
    *_, bound = model.reconstruct(shown, torch.zeros(3, LATENT))
    assert torch.equal(found["elbo"], bound)


def test_the_divergence_alone_is_no_score(model: fashion_vae.VariationalAutoencoder) -> None:
    assert tuple(fashion_vae.scores(model, images(2))) == fashion_vae.SCORES
    assert "kl" not in fashion_vae.SCORES


def test_usual_latents_are_those_of_what_it_was_trained_on(
    data: Path, model: fashion_vae.VariationalAutoencoder
) -> None:
    shown, _ = fashion.read_split(data, "train").cut(HELD_IMAGES)
    known = fashion_vae.latents(model, shown.images)
    assert torch.allclose(model.distance(known), Mahalanobis(known)(known), rtol=1e-3)


def test_no_layer_is_a_product_of_whole_maps(model: fashion_vae.VariationalAutoencoder) -> None:
    """Convolutions are computed image by image, so numbers do not depend on the batch."""
    assert not any(isinstance(each, torch.nn.Linear) for each in model.modules())


def test_training_tells_every_step_and_comes_ready(data: Path) -> None:
    steps = Steps()
    assert not fashion_vae.train(data, steps, BRIEF).training
    assert steps.seen == [(1, 2), (2, 2)]
    assert steps.figures["elbo"] < 0


def test_training_is_the_same_again(data: Path, model: fashion_vae.VariationalAutoencoder) -> None:
    again = fashion_vae.train(data, Steps(), BRIEF).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_training_raises_the_bound(data: Path) -> None:
    steps = Steps()
    fashion_vae.train(data, steps, fashion_vae.Recipe(steps=20, batch=4))
    assert steps.figures["elbo"] > -0.8 * 784 * math.log(2)


def test_samples_depend_on_the_seed_alone(model: fashion_vae.VariationalAutoencoder) -> None:
    first, again, other = (fashion_vae.sample(model, 4, seed) for seed in (1, 1, 2))
    assert first.shape == (4, 1, 28, 28)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_draft_says_how_good_the_model_is(drafted: Draft) -> None:
    assert (drafted.name, drafted.family, drafted.provenance.steps) == ("fashion-vae", "vae", 2)
    assert "generate_image" in drafted.capabilities
    assert drafted.image is not None
    assert (drafted.image.generator, drafted.image.noise) == ("decode", "latent")
    elbo = drafted.quality["elbo"]
    assert elbo.baseline is not None
    assert elbo.value < 0
    assert {"reconstruction_ssim", "feature_distance", "coverage", "false_positive_rate.likelihood"} <= set(
        drafted.quality
    )
    assert drafted.quality["defects.pixel_auroc"].baseline_name == "PCA with 32 components"
    assert drafted.quality["defects.auroc.likelihood"].baseline_name in BASELINES
    assert drafted.quality["feature_distance"].baseline_name == "fashion-gan as shipped"
    assert drafted.scoring is not None
    assert tuple(drafted.scoring.calibrations) == fashion_vae.SCORES
    assert drafted.scoring.samples == {"likelihood": 10}
    assert drafted.scoring.latents in drafted.files


def test_the_bounds_baseline_knows_each_pixels_mean(data: Path) -> None:
    known = fashion.read_split(data, "train").images
    grey = torch.full_like(known, 0.5)
    assert fashion_vae._without_latent(grey, known) == pytest.approx(784 * math.log(2), rel=1e-4)
    assert fashion_vae._without_latent(known, known) < 784 * math.log(2)


@pytest.mark.parametrize("name", ["reconstruct", "decode"])
def test_graphs_compute_what_they_declare(name: str, drafted: Draft) -> None:
    assert len(run_drafted(drafted.graphs[name])) == 2
