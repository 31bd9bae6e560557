import numpy as np
import pytest

from deployments.evaluation.likeness import psnr, squared_error, ssim


def test_the_same_is_as_like_as_can_be() -> None:
    pictures = np.random.default_rng(0).random((2, 3, 16, 16)).astype(np.float32)
    assert psnr(pictures, pictures) == pytest.approx([100, 100])
    assert ssim(pictures, pictures) == pytest.approx([1, 1])


def test_known_errors() -> None:
    black, grey = np.zeros((1, 1, 8, 8)), np.full((1, 1, 8, 8), 0.1)
    assert squared_error(black, grey) == pytest.approx([0.01])
    assert psnr(black, grey) == pytest.approx([20])
    # Flat pictures differ in luminance alone: (2ab + c) / (a^2 + b^2 + c).
    assert ssim(black, grey) == pytest.approx([1e-4 / (0.01 + 1e-4)])


def test_noise_has_less_structure_than_dimming() -> None:
    random = np.random.default_rng(0)
    picture = np.linspace(0, 1, 256).reshape(1, 1, 16, 16)
    noise = random.permuted(picture, axis=3)
    assert ssim(picture, 0.9 * picture)[0] > ssim(picture, noise)[0]
