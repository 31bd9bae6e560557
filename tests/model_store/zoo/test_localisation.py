import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from deployments.evaluation.regions import Regions
from model_store.zoo.localisation import aupro, half_spoiled, measures, pixel_auroc

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


def test_measures_stand_beside_a_baselines() -> None:
    _, masks = half_spoiled(IMAGES)
    maps, other = torch.from_numpy(masks.astype(np.float32)), torch.from_numpy(noisy(masks))
    found = measures(maps, other, {"peak": maps.flatten(1).amax(1)}, masks, "made up", "noise")
    assert set(found) == {"defects.pixel_auroc", "defects.aupro", "defects.auroc.peak"}
    best = found["defects.pixel_auroc"]
    assert best.value == 1
    assert best.baseline == pytest.approx(pixel_auroc(other.numpy(), masks), abs=1e-4)
    assert found["defects.auroc.peak"].value == 1
    assert found["defects.auroc.peak"].baseline is None
