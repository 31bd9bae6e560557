import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from deployments.evaluation.regions import Regions
from model_store.zoo.baselines import BASELINES
from model_store.zoo.localisation import aupro, half_spoiled, measures, of_maps, pixel_auroc

IMAGES = torch.full((40, 1, 28, 28), 0.5)


def test_half_of_the_images_get_a_defect() -> None:
    images, masks = half_spoiled(IMAGES)
    assert images.shape == IMAGES.shape
    assert masks.any((1, 2)).tolist() == [True] * 20 + [False] * 20
    assert torch.equal(images[20:], IMAGES[20:])


def noisy(
    masks: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    noise = np.random.default_rng(0).normal(size=masks.shape)
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = gaussian_filter(
        masks + noise, (0, 1, 1)
    ).astype(np.float32)
    return maps


def test_figures_are_those_of_others() -> None:
    """scikit-learn's, and the evaluation's of connected parts, where each defect is one."""
    _, masks = half_spoiled(IMAGES)
    maps = noisy(masks)
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert aupro(maps, masks) == pytest.approx(Regions(maps, masks).aupro(np.ones(len(masks))), abs=0.01)


def test_a_perfect_map_has_one_and_an_empty_one_finds_nothing() -> None:
    _, masks = half_spoiled(IMAGES)
    assert pixel_auroc(masks.astype(np.float32), masks) == 1
    assert aupro(masks.astype(np.float32), masks) == 1
    assert pixel_auroc(np.zeros(masks.shape, np.float32), masks) == 0.5
    assert aupro(np.zeros(masks.shape, np.float32), masks) == 0


def test_figures_of_maps_stand_beside_those_of_components() -> None:
    _, masks = half_spoiled(IMAGES)
    maps, other = torch.from_numpy(masks.astype(np.float32)), torch.from_numpy(noisy(masks))
    found = of_maps(maps[:, None], other[:, None], masks, "made up")
    assert set(found) == {"defects.pixel_auroc", "defects.aupro"}
    best = found["defects.pixel_auroc"]
    assert best.value == 1
    assert best.baseline == pytest.approx(pixel_auroc(other.numpy(), masks), abs=1e-4)


def test_a_model_stands_beside_what_is_fitted_to_the_same_images() -> None:
    """One that is shown what the pictures were before."""
    known = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    test = known[:20]

    def look(images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        error = (images - test).abs()
        return error, {"peak": error.flatten(1).amax(1)}

    found = measures(look, known, test, "made up")
    assert set(found) == {"defects.pixel_auroc", "defects.aupro", "defects.auroc.peak"}
    assert all(each.value == 1 and each.baseline is not None for each in found.values())
    note = found["defects.auroc.peak"].note
    assert note is not None
    assert all(name in note for name in BASELINES)
