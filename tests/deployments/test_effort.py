from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.effort import encodes_pictures, is_heavy
from deployments.messages import Decode, Draw, Encode, ImageItem, Interpolate, Reconstruct, Score, TensorItem
from deployments.metrics import Metrics
from deployments.model import OneShotModel, open_model
from model_store.session import Device
from model_store.store import Store

SMALL, PICTURE = TensorItem([0.0] * 64), ImageItem(b"")
MANY = (SMALL,) * 200  # of 64 numbers each


@pytest.fixture(scope="module")
def model(tiny: Path) -> OneShotModel:
    package = Store(str(tiny)).open("tiny-ae")
    model = open_model(package, HostConfig(), Device(), Metrics(CollectorRegistry()))
    assert isinstance(model, OneShotModel)
    return model


@pytest.mark.parametrize(
    ("request_", "heavy"),
    [
        (Score("m", (SMALL,)), False),
        (Score("m", MANY), True),
        (Score("m", (TensorItem(bytes(256)),) * 200), False),
        (Score("m", (TensorItem(np.zeros(64)),) * 200), False),
        (Score("m", (TensorItem(bytes(256)),) * 2000), True),
        (Reconstruct("m", (PICTURE,)), True),
        (Decode("m", ([0.0] * 64,)), False),
        (Decode("m", ([0.0] * 64,) * 200), True),
        (Interpolate("m", SMALL, SMALL), False),
        (Interpolate("m", SMALL, PICTURE), True),
        (Draw("m", n=200), False),
    ],
)
def test_many_numbers_and_pictures_take_long_to_read(model: OneShotModel, request_: Any, heavy: bool) -> None:
    assert is_heavy(model, request_) is heavy


@pytest.mark.parametrize(
    ("request_", "encodes"),
    [
        (Score("m", (SMALL,)), False),
        (Score("m", (SMALL,), map=True), True),
        (Score("m", (SMALL,), mask=True), True),
        (Reconstruct("m", (SMALL,)), False),
        (Reconstruct("m", (SMALL,), error_map=True), True),
        (Reconstruct("m", (PICTURE,)), True),
        (Encode("m", (PICTURE,)), False),
        (Decode("m", ([0.0] * 64,)), True),
    ],
)
def test_answers_with_pictures_take_long_to_write(model: OneShotModel, request_: Any, encodes: bool) -> None:
    assert encodes_pictures(model, request_) is encodes
