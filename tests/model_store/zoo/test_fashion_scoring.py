import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.zoo.fashion_scoring import QUANTILE, calibrate, false_alarms

SCORES = {"ssim": torch.linspace(1, 0, 101), "l1": torch.linspace(0, 2, 101)}


def test_the_threshold_is_exceeded_by_one_in_a_hundred() -> None:
    scoring, _ = calibrate(SCORES, default="ssim")
    assert scoring.default == "ssim"
    assert scoring.calibrations["ssim"].threshold == pytest.approx(0.99)
    assert scoring.calibrations["l1"].threshold == pytest.approx(1.98)
    assert scoring.calibrations["l1"].quantile == QUANTILE


def test_the_scores_are_kept_in_ascending_order() -> None:
    scoring, files = calibrate(SCORES, default="l1")
    kept = np.load(io.BytesIO(files[scoring.calibrations["ssim"].scores]), allow_pickle=False)
    assert kept.dtype == np.float32
    assert np.array_equal(kept, np.sort(SCORES["ssim"].numpy()))


def test_the_calibration_says_what_it_was_made_from() -> None:
    scoring, _ = calibrate(SCORES, default="l1")
    assert "not trained on" in scoring.calibrations["l1"].data
    assert scoring.calibrations["l1"].data.endswith("(101)")


def test_a_default_without_scores_is_refused() -> None:
    with pytest.raises(ValidationError, match="no calibration"):
        calibrate(SCORES, default="elbo")


def test_false_alarms_are_the_share_above_the_threshold() -> None:
    scoring, _ = calibrate(SCORES, default="ssim")
    test = {"ssim": torch.tensor([0.5, 0.985, 0.995, 1.0]), "l1": torch.zeros(4)}
    found = false_alarms(scoring, test)
    assert found["false_positive_rate.ssim"].value == 0.5
    assert found["false_positive_rate.l1"].value == 0.0
    assert found["false_positive_rate.l1"].baseline == 0.01


@given(st.lists(st.floats(0, 10, width=32), min_size=2, max_size=200))
def test_at_most_one_in_a_hundred_of_the_held_images_is_an_alarm(values: list[float]) -> None:
    held = {"l1": torch.tensor(values)}
    scoring, _ = calibrate(held, default="l1")
    alarms = (held["l1"] > scoring.calibrations["l1"].threshold).sum().item()
    assert alarms <= 0.01 * len(values) + 1
