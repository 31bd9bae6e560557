from pathlib import Path

import pytest
import torch

from model_store.export.draft import Draft
from model_store.zoo import fashion, fashion_gan, fashion_judge
from tests.model_store.zoo.drafted import run_drafted
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion

BRIEF = fashion_gan.Recipe(steps=3, batch=4, settling=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path) -> fashion_gan.Generator:
    return fashion_gan.train(data, Steps(), BRIEF)


@pytest.fixture(scope="module")
def drafted(data: Path, model: fashion_gan.Generator, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    work = tmp_path_factory.mktemp("work")
    # A judge that is there already: nothing waits for one to be trained.
    fashion_judge.appoint(data, work, Steps(), fashion_judge.Recipe(steps=1, batch=8))
    return fashion_gan.draft(model, data, work, Steps(), BRIEF)


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, fashion_gan.Config.noise, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_images_are_drawn_from_noise_and_class(model: fashion_gan.Generator) -> None:
    drawn = model(noise(3), torch.tensor([0, 5, 9]))
    assert drawn.shape == (3, 1, 28, 28)
    assert 0 <= drawn.min() <= drawn.max() <= 1


@torch.no_grad()
def test_the_class_and_the_noise_matter(model: fashion_gan.Generator) -> None:
    same = noise(1).expand(3, -1)
    shirt, shirt_again, bag = model(same, torch.tensor([6, 6, 8]))
    assert torch.allclose(shirt, shirt_again, atol=1e-6)
    assert not torch.allclose(shirt, bag, atol=1e-4)
    first, second = model(noise(2), torch.tensor([6, 6]))
    assert not torch.allclose(first, second, atol=1e-4)


def test_no_layer_of_the_generator_is_a_product_of_whole_maps(model: fashion_gan.Generator) -> None:
    """Convolutions are computed image by image, so numbers do not depend on the batch."""
    assert not any(isinstance(each, torch.nn.Linear) for each in model.modules())


def test_the_critic_hears_the_claimed_class() -> None:
    torch.manual_seed(0)
    critic = fashion_gan.Discriminator().eval()
    image = torch.rand(1, 1, 28, 28).expand(2, -1, -1, -1)
    scores = critic(image, torch.tensor([1, 2]))
    assert scores.shape == (2,)
    assert scores[0] != scores[1]


@torch.no_grad()
def test_a_new_norm_is_plain_and_a_trained_one_conditional() -> None:
    norm = fashion_gan.ConditionalNorm(channels=2, embedding=3).eval()
    x, condition = torch.randn(4, 2, 5, 5), torch.randn(4, 3, 1, 1)
    assert torch.allclose(norm(x, condition), norm.norm(x))
    torch.nn.init.ones_(norm.affine.weight)
    gain = condition.sum(1, keepdim=True)
    assert torch.allclose(norm(x, condition), norm.norm(x) * (1 + gain) + gain, atol=1e-5)


def test_training_tells_every_step_and_comes_ready(data: Path) -> None:
    steps = Steps()
    assert not fashion_gan.train(data, steps, BRIEF).training
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
    assert set(steps.figures) == {"critic", "generator"}


def test_a_pair_comes_back_of_which_one_is_shipped(data: Path, model: fashion_gan.Generator) -> None:
    pair = fashion_gan.fit(fashion.read_split(data, "train"), Steps(), BRIEF)
    kept = model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in pair.generator.state_dict().items())
    assert not pair.critic.training


def test_training_is_the_same_again(data: Path, model: fashion_gan.Generator) -> None:
    again = fashion_gan.train(data, Steps(), BRIEF).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_the_average_follows_slowly() -> None:
    torch.manual_seed(0)
    newest, averaged = fashion_gan.Generator(), fashion_gan.Generator()
    before, target = averaged.finish.weight.detach().clone(), newest.finish.weight.detach()
    fashion_gan._average(averaged, newest, keep=0.75)
    assert torch.allclose(averaged.finish.weight, 0.75 * before + 0.25 * target, atol=1e-6)


def test_settled_statistics_are_those_of_the_weights() -> None:
    torch.manual_seed(0)
    model = fashion_gan.settle(fashion_gan.Generator(), fashion_gan.Recipe(settling=3), fashion_gan.Config())
    labels = torch.arange(200) % 10
    with torch.no_grad():
        condition = model.embed(labels)[:, :, None, None]
        entering = model.start(torch.cat([noise(200)[:, :, None, None], condition], dim=1))
    first = model.norms[0]
    assert isinstance(first, fashion_gan.ConditionalNorm)
    assert first.norm.running_var is not None
    assert torch.allclose(first.norm.running_var, entering.var(dim=(0, 2, 3)), rtol=0.2)
    assert not model.training


@pytest.mark.parametrize(("step", "share"), [(1, 1.0), (60, 1.0), (81, 0.6), (100, 0.03)])
def test_the_learning_rates_fall_over_the_last_third(step: int, share: float) -> None:
    recipe = fashion_gan.Recipe(steps=100)
    optimizer = fashion_gan._optimizer(torch.nn.Linear(1, 1), recipe)
    fashion_gan._set_learning_rate((optimizer,), recipe, step)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(share * recipe.learning_rate)


def test_samples_are_of_their_labels_and_depend_on_the_seed_alone(model: fashion_gan.Generator) -> None:
    labels = torch.tensor([3, 7, 7])
    first, again, other = (fashion_gan.sample(model, labels, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.no_grad():
        assert torch.allclose(first, model(noise(3), labels), atol=1e-6)


def test_a_draft_says_how_good_the_model_is(drafted: Draft) -> None:
    assert (drafted.name, drafted.family, drafted.provenance.steps) == ("fashion-gan", "gan", 3)
    assert drafted.image is not None
    assert drafted.image.classes == fashion.CLASS_NAMES
    accuracy = drafted.quality["class_accuracy"]
    assert accuracy.baseline is not None
    assert 0 <= accuracy.value <= 1
    assert {"feature_distance", "recall", "coverage"} <= set(drafted.quality)


def test_the_graph_computes_what_it_declares(drafted: Draft) -> None:
    assert len(run_drafted(drafted.graphs["generate"])) == 2
