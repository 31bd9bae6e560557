import io

import numpy as np
import pytest

from model_store.zoo.calibrated import auroc, calibrate


def test_a_threshold_is_a_quantile_of_scores_in_order() -> None:
    scoring, files = calibrate({"one": np.array([3.0, 1.0, 2.0])}, "one", "three items", quantile=0.5)
    calibration = scoring.calibrations["one"]
    assert (calibration.threshold, calibration.quantile, calibration.data) == (2, 0.5, "three items (3)")
    stored = np.load(io.BytesIO(files[calibration.scores]), allow_pickle=False)
    assert stored.dtype == np.float32
    assert stored.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("normal", "odd", "share"), [([0, 1], [2, 3], 1.0), ([2, 3], [0, 1], 0.0), ([1, 1], [1], 0.5)]
)
def test_auroc_is_the_share_of_pairs_in_order(normal: list[float], odd: list[float], share: float) -> None:
    assert auroc(np.array(normal), np.array(odd)) == share
