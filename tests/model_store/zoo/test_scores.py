import numpy as np
import pytest
import torch

from model_store.zoo.scores import Mahalanobis, Peak, l1, l2


def test_means_of_an_error_map() -> None:
    error_map = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).reshape(2, 1, 1, 2)
    assert l1(error_map).tolist() == [0.5, 0.5]
    assert l2(error_map).tolist() == [0.5, 0.25]


def test_a_small_defect_makes_a_peak_that_a_mean_hides() -> None:
    """A spot of 3 by 3 on a clean picture, and the same mean error all over one."""
    spot = torch.zeros(1, 1, 28, 28)
    spot[..., 4:7, 20:23] = 1.0
    both = torch.cat([spot, torch.full_like(spot, float(spot.mean()))])
    spotted, even = Peak(28)(both).tolist()
    assert even == pytest.approx(l1(both)[0].item(), rel=1e-5)
    assert spotted > 20 * even


def test_a_peak_at_the_border_is_no_lower_than_one_inside() -> None:
    inside, corner = torch.zeros(1, 2, 9, 9), torch.zeros(1, 2, 9, 9)
    inside[..., 4, 4], corner[..., 0, 0] = 1.0, 1.0
    assert Peak(9, sigma=1.0)(corner) >= Peak(9, sigma=1.0)(inside)


def test_a_distance_is_mahalanobis() -> None:
    random = np.random.default_rng(0)
    normal = random.normal(size=(200, 3)) @ random.normal(size=(3, 3)) + 5
    away = normal[:10] + random.normal(size=(10, 3))
    inverse = np.linalg.inv(np.cov(normal.T))
    centred = away - normal.mean(0)
    expected = np.sqrt(np.einsum("bi,ij,bj->b", centred, inverse, centred))
    found = Mahalanobis(torch.from_numpy(normal), shrinkage=0.0)(torch.from_numpy(away).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("normal", [torch.zeros(5, 2), torch.ones(3, 1), torch.randn(3, 8)])
def test_too_little_spread_is_no_failure(normal: torch.Tensor) -> None:
    assert torch.isfinite(Mahalanobis(normal)(normal + 0.1)).all()
