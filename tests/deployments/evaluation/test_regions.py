import numpy as np
import pytest
from sklearn import metrics

from deployments.evaluation.regions import Regions, localisation


def made() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    masks = np.zeros((6, 16, 16), bool)
    masks[0, 2:6, 2:6] = masks[1, 1:3, 1:3] = masks[1, 8:15, 8:15] = True  # the second has two defects
    return (random.random(masks.shape) + 0.5 * masks).astype(np.float32), masks


def test_pixel_auroc_is_scikit_learns() -> None:
    maps, masks = made()
    found = Regions(maps, masks).auroc(np.ones(6))
    assert found == pytest.approx(metrics.roc_auc_score(masks.ravel(), maps.ravel()), abs=2e-3)


def test_drawing_a_picture_twice_counts_its_pixels_twice() -> None:
    maps, masks = made()
    twice = Regions(np.concatenate([maps, maps[:1]]), np.concatenate([masks, masks[:1]]))
    assert Regions(maps, masks).auroc(np.array([2.0, 1, 1, 1, 1, 1])) == pytest.approx(
        twice.auroc(np.ones(7)), abs=2e-3
    )


def test_aupro_counts_defects_and_not_pixels() -> None:
    maps = np.zeros((2, 16, 16), np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[0, :8] = True  # a great defect that is not seen
    masks[1, 0, 0] = maps[1, 0, 0] = 1  # a small one that is
    regions = Regions(maps, masks)
    assert regions.count == 2
    # The small one counts as half of what there is; the rest is found as by chance.
    assert regions.aupro(np.ones(2)) == pytest.approx(0.5 + 0.5 * 0.15, abs=0.01)


def test_a_perfect_map_is_perfect() -> None:
    _, masks = made()
    figures, [plot] = localisation(masks.astype(np.float32), masks, "key")
    assert figures["pixel_auroc"].value == pytest.approx(1)
    assert figures["aupro"].value == pytest.approx(1)
    assert [curve.name for curve in plot.curves] == ["pixels", "defects"]
