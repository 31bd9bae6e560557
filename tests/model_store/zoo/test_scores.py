import numpy as np
import pytest
import torch

from model_store.zoo.scores import Fused, Mahalanobis, Peak, highest, l1, l2


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


def test_the_peak_is_the_highest_place_of_the_blurred_map() -> None:
    error_map = torch.rand(3, 2, 28, 28, generator=torch.Generator().manual_seed(0))
    peak = Peak(28)
    assert peak.blurred(error_map).shape == error_map.shape
    assert torch.allclose(peak.blurred(torch.ones(1, 1, 28, 28)), torch.ones(1, 1, 28, 28))
    assert torch.equal(peak(error_map), highest(peak.blurred(error_map)))


def test_fused_scores_are_sums_of_z_scores_of_logarithms() -> None:
    random = np.random.default_rng(0)
    normal = np.exp(random.normal(size=(500, 2)) * [0.1, 2.0] + [3.0, -1.0])
    fused = Fused(torch.from_numpy(normal))
    found = fused(torch.from_numpy(normal).float()).numpy()
    logs = np.log(normal)
    np.testing.assert_allclose(found, ((logs - logs.mean(0)) / logs.std(0, ddof=1)).sum(1), atol=1e-3)


def test_what_one_score_misses_the_fused_one_sees() -> None:
    """Of scores with nothing to do with one another, each alone sees one kind of anomaly."""
    normal = torch.rand(1_000, 2, generator=torch.Generator().manual_seed(0)) + 1
    fused = Fused(normal)
    limit = fused(normal).quantile(0.99)
    assert (fused(torch.tensor([[4.0, 1.5], [1.5, 4.0]])) > limit).all()


def test_a_score_that_is_always_the_same_is_no_failure() -> None:
    assert torch.isfinite(Fused(torch.zeros(5, 2))(torch.rand(3, 2))).all()
