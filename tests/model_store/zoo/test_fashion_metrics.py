import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from model_store.zoo.fashion_metrics import (
    StructuralSimilarity,
    auroc,
    frechet_distance,
    manifold,
    pca_reconstruction,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def similarity_by_pooling(a: Tensor, b: Tensor, window: int) -> Tensor:
    """The textbook's SSIM, its means taken by average pooling."""

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    return luminance * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4)


class TestStructuralSimilarity:
    @pytest.mark.parametrize(("side", "window"), [(28, 7), (12, 3), (9, 11)])
    def test_it_is_the_textbook_formula_with_a_clipped_window(self, side: int, window: int) -> None:
        a, b = pictures(3, side), pictures(3, side, seed=1)
        found = StructuralSimilarity(side, window)(a, b)
        assert found.shape == (3, 1, side, side)
        assert torch.allclose(found, similarity_by_pooling(a, b, window), atol=1e-5)

    def test_an_image_is_like_itself(self) -> None:
        image = pictures(2, 28)
        assert torch.allclose(StructuralSimilarity(28, 7)(image, image), torch.ones(2, 1, 28, 28))

    def test_it_is_symmetric(self) -> None:
        a, b = pictures(2, 28), pictures(2, 28, seed=1)
        measure = StructuralSimilarity(28, 7)
        assert torch.allclose(measure(a, b), measure(b, a), atol=1e-6)

    def test_more_noise_is_less_alike(self) -> None:
        a, noise = pictures(1, 28), normal(1, 1, 28, 28)
        measure = StructuralSimilarity(28, 7)
        alike = [
            measure(a, (a + amount * noise).clamp(0, 1)).mean().item() for amount in (0.0, 0.1, 0.3, 1.0)
        ]
        assert alike == sorted(alike, reverse=True)

    def test_it_adds_nothing_to_the_weights(self) -> None:
        assert not StructuralSimilarity(28, 7).state_dict()


class TestFrechetDistance:
    def test_equal_sets_are_at_no_distance(self) -> None:
        features = normal(200, 8)
        assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)

    def test_a_shift_counts_squared(self) -> None:
        features = normal(200, 8)
        assert frechet_distance(features, features + 2.0) == pytest.approx(8 * 4.0, rel=1e-4)

    def test_a_scale_counts_by_its_standard_deviations(self) -> None:
        features = normal(500, 4)
        expected = features.double().T.cov().trace().item()
        centred = features - features.mean(0)
        assert frechet_distance(centred, 2 * centred) == pytest.approx(expected, rel=1e-4)

    def test_fewer_samples_than_features_are_no_trouble(self) -> None:
        assert frechet_distance(normal(10, 32), normal(10, 32, seed=1)) > 0


class TestManifold:
    def test_samples_of_one_distribution_overlap(self) -> None:
        found = manifold(normal(300, 4), normal(300, 4, seed=1))
        assert min(found.precision, found.recall, found.coverage) > 0.85
        assert found.density == pytest.approx(1.0, abs=0.15)

    def test_strangers_do_not_overlap(self) -> None:
        found = manifold(normal(100, 4), normal(100, 4, seed=1) + 50)
        assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)

    def test_one_point_repeated_is_precise_but_covers_nothing(self) -> None:
        real = normal(200, 4)
        collapsed = real[:1] + 1e-3 * normal(200, 4, seed=1)
        found = manifold(real, collapsed)
        assert found.precision == 1.0
        assert found.recall < 0.05
        assert found.coverage < 0.1

    def test_half_of_the_real_modes_are_half_covered(self) -> None:
        real = torch.cat([normal(100, 4), normal(100, 4, seed=1) + 50])
        found = manifold(real, normal(200, 4, seed=2))
        assert found.recall == pytest.approx(0.5, abs=0.1)
        assert found.coverage == pytest.approx(0.5, abs=0.1)


class TestAuroc:
    def test_apart_together_and_upside_down(self) -> None:
        low, high = torch.arange(10.0), torch.arange(10.0) + 10
        assert auroc(low, high) == 1.0
        assert auroc(high, low) == 0.0
        assert auroc(low, low) == 0.5

    @given(
        st.lists(st.integers(0, 6), min_size=1, max_size=30),
        st.lists(st.integers(0, 6), min_size=1, max_size=30),
    )
    @settings(deadline=None)
    def test_it_counts_the_pairs_in_the_right_order(
        self, normal_scores: list[int], abnormal: list[int]
    ) -> None:
        pairs = [(a > n) + 0.5 * (a == n) for a in abnormal for n in normal_scores]
        found = auroc(torch.tensor(normal_scores).float(), torch.tensor(abnormal).float())
        assert found == pytest.approx(sum(pairs) / len(pairs))


class TestPCA:
    def test_images_of_few_dimensions_are_redrawn_exactly(self) -> None:
        axes = normal(3, 16)
        training, images = normal(50, 3, seed=1) @ axes + 1, normal(5, 3, seed=2) @ axes + 1
        redrawn = pca_reconstruction(training.reshape(50, 4, 4), images.reshape(5, 4, 4), components=3)
        assert torch.allclose(redrawn, images.reshape(5, 4, 4), atol=1e-4)

    def test_more_components_leave_less_error(self) -> None:
        training, images = normal(100, 20), normal(30, 20, seed=1)
        errors = [
            (pca_reconstruction(training, images, n) - images).square().mean().item() for n in (1, 5, 15)
        ]
        assert errors == sorted(errors, reverse=True)
