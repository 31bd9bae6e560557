from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_store.export.draft import Progress
from model_store.zoo import fashion
from model_store.zoo.baselines import BASELINES
from model_store.zoo.fashion_one_class import measures, ten_aurocs
from tests.model_store.zoo.tiny_fashion import Steps, write_tiny_fashion


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fashion(tmp_path_factory.mktemp("data"))


def test_each_class_is_learned_alone_and_told_from_the_others(data: Path) -> None:
    """By how far a picture is from the mean of those that were shown."""
    shown = []

    def scorer(known: Tensor, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        shown.append(known)
        progress(1, 1, {})
        return {"far": (images - known.mean(0)).square().flatten(1).sum(1)}

    steps = Steps()
    found = ten_aurocs(data, scorer, steps)
    train = fashion.read_split(data, "train")
    assert all(torch.equal(each, train.of_class(label).images) for label, each in enumerate(shown))
    assert steps.seen == [(done, 10) for done in range(1, 11)]
    assert set(found) == {"far", *BASELINES}
    assert found["far"] == [1.0] * 10  # plain rectangles


def test_measures_stand_beside_the_best_baseline_and_name_all() -> None:
    names = list(BASELINES)
    aurocs = {"own": [0.9, 0.8], names[0]: [0.7, 0.7], names[1]: [0.75, 0.75], names[2]: [0.6, 0.6]}
    found = measures(aurocs)
    assert set(found) == {"one_class_auroc.own"}
    figure = found["one_class_auroc.own"]
    assert (figure.value, figure.baseline, figure.baseline_name) == (0.85, 0.75, names[1])
    assert figure.note is not None
    assert all(name in figure.note for name in names)
