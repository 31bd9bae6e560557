from pathlib import Path

import torch

from model_store.zoo import fashion
from model_store.zoo.baselines import BASELINES, baselines, best_of
from tests.model_store.zoo.tiny_fashion import write_tiny_fashion


def test_baselines_know_what_they_were_fitted_to(tmp_path: Path) -> None:
    train = fashion.read_split(write_tiny_fashion(tmp_path), "train")
    found = baselines(
        train.of_class(0).images, torch.cat([train.of_class(0).images, train.of_class(9).images])
    )
    assert set(found) == set(BASELINES)
    for values in found.values():
        assert values[:6].max() < values[6:].min()


def test_the_best_is_named_and_all_are_told() -> None:
    first, second, third = BASELINES
    value, name, words = best_of({first: 0.51234, second: 0.7, third: 0.6})
    assert (value, name) == (0.7, second)
    assert words == f"{first} 0.5123, {second} 0.7000, {third} 0.6000"
