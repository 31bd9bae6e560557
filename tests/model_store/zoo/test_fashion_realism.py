import io
from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.export.draft import Draft
from model_store.zoo import fashion, fashion_gan, fashion_realism
from tests.model_store.zoo.drafted import run_drafted
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion

BRIEF = fashion_realism.Recipe(steps=3, batch=4, settling=2, alone=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def told() -> Steps:
    return Steps()


@pytest.fixture(scope="module")
def model(data: Path, told: Steps) -> fashion_realism.Realism:
    return fashion_realism.train(data, told, BRIEF)


@pytest.fixture(scope="module")
def drafted(data: Path, model: fashion_realism.Realism, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return fashion_realism.draft(model, data, tmp_path_factory.mktemp("work"), Steps(), BRIEF)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def critic() -> fashion_gan.Discriminator:
    torch.manual_seed(0)
    trained = fashion_gan.Discriminator()
    trained(images(4), torch.arange(4))  # the normalisation's estimates move
    return trained.eval()


@torch.no_grad()
def test_the_verdict_is_that_on_every_class_at_once() -> None:
    trained, shown = critic(), images(3)
    verdicts = torch.stack([trained(shown, torch.full((3,), label)) for label in range(10)], dim=1)
    found = fashion_realism.unconditional(trained)(shown)
    assert torch.allclose(found, -verdicts.logsumexp(1), atol=1e-5)


@torch.no_grad()
def test_the_discriminator_stays_what_it_is() -> None:
    trained, shown = critic(), images(2)
    before = trained(shown, torch.tensor([1, 2]))
    fashion_realism.unconditional(trained)
    assert torch.equal(trained(shown, torch.tensor([1, 2])), before)


def test_no_layer_is_a_product_of_whole_maps(model: fashion_realism.Realism) -> None:
    """Convolutions are computed image by image, so numbers do not depend on the batch."""
    assert not any(isinstance(each, torch.nn.Linear) for each in model.modules())


def test_both_parts_of_the_training_are_told(model: fashion_realism.Realism, told: Steps) -> None:
    assert not model.training
    assert told.seen == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]
    assert set(told.figures) == {"critic", "generator", "alone"}


def test_alone_it_learns_to_tell_what_it_could_not(data: Path) -> None:
    real = fashion.read_split(data, "train").images
    made = images(20)
    model = fashion_realism.unconditional(critic())
    recipe = fashion_realism.Recipe(batch=8, alone=30, alone_rate=3e-3)

    def apart() -> float:
        return float(fashion_realism.scores(model, made).mean() - fashion_realism.scores(model, real).mean())

    before = apart()
    assert fashion_realism.finish(model, real, made, Steps(), recipe) is model
    assert apart() > before + 1


def test_images_are_damaged_in_three_ways() -> None:
    torch.manual_seed(0)
    whole = images(9)
    spoilt = fashion_realism.damaged(whole)
    assert spoilt.shape == whole.shape
    assert 0 <= spoilt.min() <= spoilt.max() <= 1
    assert ((spoilt - whole).abs().amax(dim=(1, 2, 3)) > 0.05).all()
    grain = (whole[:, :, :, 1:] - whole[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
    left = (spoilt[:, :, :, 1:] - spoilt[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
    assert (left[:3] < grain[:3]).all()
    assert (left[6:] < grain[6:]).all()
    assert torch.equal(fashion_realism.damaged(whole[:1]) > -1, whole[:1] > -1)


def test_unreal_images_are_as_many_as_real_ones(data: Path) -> None:
    test = fashion.read_split(data, "t10k")
    kinds = fashion_realism.unreal(test)
    assert set(kinds) == {"vae", "gan", "noise", "inverted"}
    for words, note, made in kinds.values():
        assert words
        assert note
        assert made.shape == test.images.shape
        assert 0 <= made.min() <= made.max() <= 1
    assert torch.equal(kinds["inverted"][-1], 1 - test.images)


def test_a_draft_says_how_well_it_tells_them_apart(drafted: Draft) -> None:
    assert (drafted.name, drafted.task, drafted.capabilities) == (
        "fashion-realism",
        "anomaly-detection",
        ("score",),
    )
    assert "the higher, the less real" in drafted.description
    for name in ("vae", "gan", "noise", "inverted"):
        figure = drafted.quality[f"auroc.{name}"]
        assert 0 <= figure.value <= 1
        assert figure.baseline_name == "1 - SSIM of fashion-ae"
        assert figure.baseline is not None
    assert "false_positive_rate.fake" in drafted.quality


def test_scores_are_calibrated_on_images_that_it_was_not_shown(
    data: Path, model: fashion_realism.Realism, drafted: Draft
) -> None:
    _, held = fashion.read_split(data, "train").cut(5_000)
    kept = np.load(io.BytesIO(drafted.files["calibration/fake.npy"]), allow_pickle=False)
    assert np.allclose(kept, np.sort(fashion_realism.scores(model, held.images).numpy()), atol=1e-6)


def test_the_graph_computes_what_it_declares(drafted: Draft) -> None:
    graph = drafted.graphs["score"]
    assert graph.stored == "float16"
    assert len(run_drafted(graph)) == 2
