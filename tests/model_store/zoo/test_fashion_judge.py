from pathlib import Path

import pytest
import torch

from model_store.zoo import fashion, fashion_judge
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion

BRIEF = fashion_judge.Recipe(steps=3, batch=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"))


def test_features_and_logits_have_their_shapes() -> None:
    judge = fashion_judge.Classifier().eval()
    images = torch.rand(3, 1, 28, 28)
    assert judge.features(images).shape == (3, 128)
    assert judge(images).shape == (3, 10)


def test_training_tells_every_step_and_comes_ready_to_judge(data: Path) -> None:
    steps = Steps()
    judge = fashion_judge.train(data, steps, BRIEF)
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
    assert steps.figures["classifier loss"] > 0
    assert not judge.training


def test_training_is_the_same_again(data: Path) -> None:
    first, again = (fashion_judge.train(data, Steps(), BRIEF).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_it_learns_plain_rectangles(data: Path) -> None:
    judge = fashion_judge.train(data, Steps(), fashion_judge.Recipe(steps=20, batch=30, dropout=0.0))
    assert fashion_judge.accuracy(judge, fashion.read_split(data, "t10k")) > 0.5


def test_accuracy_is_the_share_of_right_answers(data: Path) -> None:
    judge = fashion_judge.train(data, Steps(), BRIEF)
    images = fashion.read_split(data, "t10k").images
    seen = fashion.in_pieces(judge, images).argmax(1)
    assert fashion_judge.accuracy(judge, fashion.Fashion(images, seen)) == 1.0
    assert fashion_judge.accuracy(judge, fashion.Fashion(images, (seen + 1) % 10)) == 0.0


def test_a_judge_is_trained_once_for_a_folder(data: Path, tmp_path: Path) -> None:
    first, second = Steps(), Steps()
    trained = fashion_judge.appoint(data, tmp_path, first, BRIEF)
    kept = fashion_judge.appoint(data, tmp_path, second, BRIEF)
    images = torch.rand(2, 1, 28, 28)
    assert len(first.seen) == 3
    assert not second.seen
    assert torch.equal(trained(images), kept(images))


def test_the_distance_of_a_set_to_itself_is_nothing(data: Path) -> None:
    judge = fashion_judge.train(data, Steps(), BRIEF)
    images = fashion.read_split(data, "t10k").images
    assert fashion_judge.feature_distance(judge, images, images) == pytest.approx(0, abs=1e-4)
    assert fashion_judge.feature_distance(judge, images, torch.rand_like(images)) > 0.01


def test_every_figure_has_the_mark_that_real_images_set(data: Path) -> None:
    judge = fashion_judge.train(data, Steps(), BRIEF)
    known, test = fashion.read_split(data, "train"), fashion.read_split(data, "t10k")
    found = fashion_judge.compare(judge, test, known, torch.rand_like(test.images))
    assert list(found) == ["feature_distance", "precision", "recall", "density", "coverage"]
    assert {each.baseline_name for each in found.values()} == {"real training images"}
    distance = found["feature_distance"]
    assert distance.baseline is not None
    assert not distance.higher_is_better
    assert distance.value > distance.baseline
    assert found["coverage"].higher_is_better
