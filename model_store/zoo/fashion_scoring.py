"""Calibration of the anomaly scores that the autoencoder and the VAE compute: thresholds, and figures of how they hold.

Knows scores by name, no model.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from model_store.export import calibration
from model_store.manifest import Measure, Scoring
from model_store.zoo.fashion import TEST_DATA

HELD_IMAGES: Final = 5_000
QUANTILE: Final = calibration.QUANTILE
CALIBRATION_DATA: Final = (
    "Fashion-MNIST: the last training images, all classes, which the model was not trained on"
)


def calibrate(
    held: Mapping[str, Tensor], default: str, data: str = CALIBRATION_DATA, latents: Tensor | None = None
) -> tuple[Scoring, dict[str, bytes]]:
    """Set each score's threshold to the 0.99 quantile of its values [count] on normal images that were held out.

    Returns the manifest's part, and as files by path the sorted scores and the images' `latents` [count, latent].
    """
    scores = {name: values.numpy() for name, values in held.items()}
    return calibration.calibrate(
        scores, default, data, QUANTILE, None if latents is None else latents.numpy()
    )


def false_alarms(scoring: Scoring, test: Mapping[str, Tensor]) -> dict[str, Measure]:
    """Measure the share of test images, all of them normal, whose score [count] exceeds its threshold."""
    return {
        f"false_positive_rate.{name}": Measure(
            value=round((test[name] > each.threshold).double().mean().item(), 4),
            higher_is_better=False,
            data=TEST_DATA,
            baseline=round(1.0 - QUANTILE, 4),
            baseline_name="the rate the threshold is set for",
        )
        for name, each in scoring.calibrations.items()
    }
