import numpy as np

from model_store.export.draft import tensor
from model_store.feeds import feeds


def test_noise_is_zero_and_everything_is_known() -> None:
    inputs = (
        tensor("x", "float32", "batch", 3, role="input"),
        tensor("z", "float32", "batch", 2, role="noise"),
        tensor("k", "float32", "batch", 4, role="known"),
    )
    items = np.arange(6, dtype=np.float32).reshape(2, 3)
    made = feeds(inputs, items)
    assert made["x"] is items
    assert made["z"].tolist() == [[0, 0]] * 2
    assert made["k"].tolist() == [[1, 1, 1, 1]] * 2
