"""How well anomaly maps show where the defects are: pixel AUROC and AUPRO (Bergmann et al. 2020). Knows no model.

Pixels are counted in as many bins of their scores as there are thresholds, image by image and defect by defect, so that
drawing images again only adds counts.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deployments.evaluation.detection import thinned
from deployments.evaluation.estimates import Sampling, estimate
from deployments.evaluation.record import Figure, Plot
from model_store.ranking import Weights

Counts: TypeAlias = NDArray[np.float64]

THRESHOLDS: Final = 1000
MOST_FALSE: Final = 0.3  # AUPRO is integrated up to this false positive rate
_SAMPLE: Final = 1_000_000  # pixels that the thresholds are chosen from
_EIGHT: Final = np.ones((3, 3))  # pixels that touch at a corner are one defect


class Regions:
    """The pixels of anomaly maps [items, height, width] beside masks of the same shape, true in defects."""

    def __init__(self, maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
        pixels = maps.ravel()
        sample = pixels[:: max(len(pixels) // _SAMPLE, 1)]
        edges = np.unique(np.quantile(sample, np.linspace(0, 1, THRESHOLDS + 1)))
        self._bins = len(edges)
        normal, defects, owners = [], [], []
        for place, (each, mask) in enumerate(zip(maps, masks, strict=True)):
            # The highest bin first: a cumulative sum then counts what lies above each threshold.
            bins = self._bins - np.searchsorted(edges, each, side="right").clip(1)
            normal.append(self._count(bins[~mask]))
            labelled, count = ndimage.label(mask, structure=_EIGHT)
            defects += [self._count(bins[labelled == defect + 1]) for defect in range(count)]
            owners += [place] * count
        self._normal, self._defects = np.array(normal), np.array(defects)
        self._owners = np.array(owners, np.int64)
        self.count = len(owners)

    def _count(self, bins: NDArray[np.integer]) -> Counts:
        return np.bincount(bins, minlength=self._bins).astype(np.float64)

    def roc(self, weights: Weights) -> tuple[Counts, Counts]:
        """False and true positive rate of pixels at every threshold."""
        return _rate(weights @ self._normal), _rate(weights[self._owners] @ self._defects)

    def pro(self, weights: Weights) -> tuple[Counts, Counts]:
        """False positive rate of pixels, and the mean share that is found of a defect, at every threshold."""
        found = self._defects.cumsum(1) / self._defects.sum(1, keepdims=True)
        by_defect = weights[self._owners]
        overlap = by_defect @ found / by_defect.sum()
        return _rate(weights @ self._normal), np.concatenate([[0.0], overlap])

    def auroc(self, weights: Weights) -> float:
        """Area under `roc`."""
        return _area(*self.roc(weights))

    def aupro(self, weights: Weights) -> float:
        """Area under `pro` up to a false positive rate of 0.3, as a share of it."""
        false, overlap = self.pro(weights)
        inside = false <= MOST_FALSE
        x = np.append(false[inside], MOST_FALSE)
        y = np.append(overlap[inside], np.interp(MOST_FALSE, false, overlap))
        return _area(x, y) / MOST_FALSE


def _area(x: Counts, y: Counts) -> float:
    return float(np.trapezoid(y, x))


def _rate(counts: Counts) -> Counts:
    return np.concatenate([[0.0], counts.cumsum() / counts.sum()])


def defective(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the masks [items, height, width] have a defect."""
    found: NDArray[np.bool_] = np.logical_or.reduce(masks.reshape(len(masks), -1), axis=1)
    return found


def localisation(
    maps: NDArray[np.float32], masks: NDArray[np.bool_], key: str
) -> tuple[dict[str, Figure], list[Plot]]:
    """Pixel AUROC and AUPRO of maps and masks [items, height, width], some of them with a defect."""
    regions = Regions(maps, masks)
    sampling = Sampling(f"{key}:masks", defective(masks).astype(np.int64))
    figures = {
        "pixel_auroc": estimate(
            regions.auroc,
            sampling,
            better=True,
            about="AUROC over pixels, of the anomaly map against the masks",
        ),
        "aupro": estimate(
            regions.aupro,
            sampling,
            better=True,
            about="mean share found of each defect, over false positive rates up to 0.3",
        ),
    }
    pixel, overlap = (
        thinned(name, *curve(sampling.ones))
        for name, curve in (("pixels", regions.roc), ("defects", regions.pro))
    )
    plot = Plot(
        title="Where the defects are",
        x="false positive rate of pixels",
        y="share found",
        curves=(pixel, overlap),
        unit_square=True,
        diagonal=True,
        marks={"AUPRO ends": MOST_FALSE},
    )
    return figures, [plot]
