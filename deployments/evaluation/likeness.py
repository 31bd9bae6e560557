"""How near what is redrawn is to the original, item by item: PSNR, SSIM, mean squared error. Knows no model."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats: TypeAlias = NDArray[np.floating]

_SIGMA: Final = 1.5  # of the window, in pixels (Wang et al. 2004), cut at 3.5 sigma: 11 pixels wide
_LUMINANCE: Final = 0.01**2
_CONTRAST: Final = 0.03**2
_LEAST: Final = 1e-10  # mean squared error: pictures that are the same have 100 dB


def squared_error(a: Floats, b: Floats) -> Floats:
    """Mean squared error of each of the items [count, ...]."""
    errors: Floats = np.square(a.astype(np.float64) - b).reshape(len(a), -1).mean(1)
    return errors


def psnr(a: Floats, b: Floats) -> Floats:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]."""
    found: Floats = -10 * np.log10(np.maximum(squared_error(a, b), _LEAST))
    return found


def ssim(a: Floats, b: Floats) -> Floats:
    """Mean structural similarity of pictures [count, channels, height, width] in [0, 1]: 1 where they are the same."""
    return np.array(
        [_ssim(one.astype(np.float64), other.astype(np.float64)) for one, other in zip(a, b, strict=True)]
    )


def _ssim(a: Floats, b: Floats) -> float:
    mean_a, mean_b = _blurred(a), _blurred(b)
    variances = _blurred(a * a) - mean_a**2 + _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + _LUMINANCE) * (2 * covariance + _CONTRAST)
    return float((above / ((mean_a**2 + mean_b**2 + _LUMINANCE) * (variances + _CONTRAST))).mean())


def _blurred(values: Floats) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(values, (0, _SIGMA, _SIGMA), truncate=3.5)
    return blurred
