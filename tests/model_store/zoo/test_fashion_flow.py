from pathlib import Path

import pytest
import torch

from model_store.export.draft import Draft
from model_store.zoo import fashion, fashion_flow, fashion_judge, flow
from model_store.zoo.flow_unet import Denoiser
from model_store.zoo.training import draws
from tests.model_store.zoo import tiny_nets
from tests.model_store.zoo.neighbours import check_rows
from tests.model_store.zoo.recipes import published
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion
from tests.model_store.zoo.tiny_nets import UNET, made_by
from tests.model_store.zoo.weights import awake

BRIEF = fashion_flow.Recipe(steps=2, straightening=2, batch=4, windows=flow.Windows(steps=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"), test=10)


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return awake(Denoiser(UNET))


@pytest.fixture(scope="module")
def drafted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    work = tmp_path_factory.mktemp("work")
    # A judge that is there already: nothing waits for one to be trained.
    fashion_judge.appoint(data, work, Steps(), fashion_judge.Recipe(steps=1, batch=8))
    trained = awake(fashion_flow.train(data, Steps(), BRIEF, UNET))
    return made_by(fashion_flow.draft(trained, data, work, Steps(), BRIEF), tiny_nets.denoiser)


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_reduced_precision_is_near(model: Denoiser) -> None:
    given = latents(4), torch.rand(4), torch.tensor([0, 3, 9, 10])
    exact, near = model(*given), fashion_flow.reduced(model, *given)
    assert near.dtype == torch.float32
    assert (exact - near).abs().mean() < 0.02 * exact.abs().mean()


def test_some_labels_are_hidden() -> None:
    recipe = fashion_flow.Recipe(unlabelled=0.25)
    labels = torch.arange(2_000) % 10
    lessons = fashion_flow.Lessons(torch.zeros(2_000, 1, 1, 1), labels, recipe)
    _, shown = lessons.take(torch.arange(2_000), draws(0, 0))
    hidden = shown == fashion_flow.NO_CLASS
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(shown[~hidden], labels[~hidden])


def test_the_second_stage_takes_the_images_that_follow() -> None:
    lessons = fashion_flow.Lessons(torch.zeros(12, 1, 1, 1), torch.zeros(12), BRIEF)
    first, second = lessons.order(2, after=0), lessons.order(1, after=2)
    assert sorted(torch.cat([*first, *second]).tolist()) == list(range(12))


def test_training_tells_every_step_of_both_stages_and_comes_ready(data: Path) -> None:
    steps = Steps()
    trained = fashion_flow.train(data, steps, BRIEF, UNET)
    assert not trained.training
    assert steps.seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(steps.figures) == {"loss", "straight loss"}


def test_training_is_the_same_again_and_from_its_checkpoints(data: Path, tmp_path: Path) -> None:
    first = fashion_flow.train(data, Steps(), BRIEF, UNET, tmp_path).state_dict()
    again = fashion_flow.train(data, Steps(), BRIEF, UNET).state_dict()
    resumed = Steps()
    kept = fashion_flow.train(data, resumed, BRIEF, UNET, tmp_path).state_dict()
    assert not resumed.seen
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, kept[name])


def test_training_learns(data: Path) -> None:
    recipe = fashion_flow.Recipe(steps=60, straightening=1, batch=16, rate=fashion_flow.Rate(5e-3))
    losses: list[float] = []
    fashion_flow.train(data, lambda _, __, figures: losses.append(figures.get("loss", 0.0)), recipe, UNET)
    assert sum(losses[50:60]) < 0.7 * sum(losses[:10])


def test_samples_are_of_their_labels_and_depend_on_the_seed_alone(model: Denoiser) -> None:
    labels = torch.tensor([3, 7, 7])
    first, again, other = (fashion_flow.sample(model, labels, seed, steps=2) for seed in (1, 1, 2))
    assert first.shape == (3, 1, 28, 28)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, fashion_flow.sample(model, torch.tensor([4, 7, 7]), 1, steps=2))
    assert not torch.equal(first, fashion_flow.sample(model, labels, 1, steps=2, solver=flow.heun))
    assert not torch.equal(first, fashion_flow.sample(model, labels, 1, steps=2, guidance=3.0))


def test_a_draft_says_how_good_the_model_is(drafted: Draft) -> None:
    assert (drafted.name, drafted.family, drafted.provenance.steps) == ("fashion-flow", "flow", 4)
    assert drafted.image is not None
    assert drafted.image.classes == fashion.CLASS_NAMES
    assert {"class_accuracy", "feature_distance", "recall", "coverage"} <= set(drafted.quality)
    assert {f"feature_distance.{steps}_steps" for steps in (1, 2, 4, 16)} <= set(drafted.quality)
    assert drafted.quality["feature_distance"].baseline_name == "fashion-gan as shipped"


def test_what_is_trained_can_be_published_and_its_rows_are_their_own(drafted: Draft, tmp_path: Path) -> None:
    package = published(drafted, tmp_path)
    image = package.manifest.image
    assert image is not None
    assert image.denoise is not None
    assert image.denoise.steps % BRIEF.windows.count == 0
    assert image.denoise.most_guidance > 1
    check_rows(package, drafted)


def test_the_shipped_net_is_as_small_as_it_says() -> None:
    assert 1_700_000 < sum(each.numel() for each in fashion_flow.denoiser().parameters()) < 1_900_000
