import math
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from model_store.export.draft import Draft
from model_store.zoo import fashion, fashion_judge, fashion_vae
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
    _, mean, spread, _, _, _, bound = model.reconstruct(shown, noise)
    pixels = Bernoulli(logits=model.logits(mean + spread * noise)).log_prob(shown).sum(dim=(1, 2, 3))
    divergence = kl_divergence(Normal(mean, spread), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(bound, divergence - pixels, rtol=1e-4)


@torch.no_grad()
def test_scores_belong_to_the_reconstruction(model: fashion_vae.VariationalAutoencoder) -> None:
    shown = images(3)
    redrawn, _, _, error_map, unlike, error, _ = model.reconstruct(shown, torch.zeros(3, LATENT))
    assert torch.equal(error_map, (shown - redrawn).abs())
    assert torch.allclose(error, error_map.flatten(1).mean(1))
    assert torch.allclose(unlike, 1 - model.similarity(shown, redrawn).flatten(1).mean(1))


def test_the_divergence_alone_is_no_score(model: fashion_vae.VariationalAutoencoder) -> None:
    assert set(fashion_vae.scores(model, images(2))) == {"ssim", "l1", "elbo"}


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
    assert {"reconstruction_ssim", "feature_distance", "coverage", "false_positive_rate.elbo"} <= set(
        drafted.quality
    )
    assert drafted.quality["feature_distance"].baseline_name == "fashion-gan as shipped"
    assert drafted.scoring is not None
    assert set(drafted.scoring.calibrations) == {"ssim", "l1", "elbo"}


def test_the_bounds_baseline_knows_each_pixels_mean(data: Path) -> None:
    known = fashion.read_split(data, "train").images
    grey = torch.full_like(known, 0.5)
    assert fashion_vae._without_latent(grey, known) == pytest.approx(784 * math.log(2), rel=1e-4)
    assert fashion_vae._without_latent(known, known) < 784 * math.log(2)


@pytest.mark.parametrize("name", ["reconstruct", "decode"])
def test_graphs_compute_what_they_declare(name: str, drafted: Draft) -> None:
    assert len(run_drafted(drafted.graphs[name])) == 2
