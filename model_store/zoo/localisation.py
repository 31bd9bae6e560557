"""How well anomaly maps show where synthetic defects are: pixel AUROC and AUPRO (Bergmann et al. 2020). Knows no model.

Beside them stand detectors that are fitted to the same images.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import ranking
from model_store.manifest import Measure
from model_store.zoo.baselines import COMPONENTS, PCA, Scores, baselines, best_of
from model_store.zoo.defects import Floats, Masks, spoil
from model_store.zoo.fashion_metrics import pca_reconstruction
from model_store.zoo.scores import Peak, highest

Look: TypeAlias = Callable[[Tensor], tuple[Tensor, Scores]]
"""Error maps [count, channels, side, side] and scores of images [count, channels, side, side]."""

MOST_FALSE: Final = 0.3
"""False positive rate up to which AUPRO is integrated."""

RATES: Final = 301
SEED: Final = 0


def half_spoiled(images: Tensor) -> tuple[Tensor, Masks]:
    """The images [count, channels, side, side], a defect in each of the first half, and masks [count, side, side]."""
    half = len(images) // 2
    spoiled = spoil(images[:half].numpy(), SEED)
    clean = np.zeros((len(images) - half, *spoiled.masks.shape[1:]), np.bool_)
    return torch.cat([torch.from_numpy(spoiled.pictures), images[half:]]), np.concatenate(
        [spoiled.masks, clean]
    )


def pixel_auroc(maps: Floats, masks: Masks) -> float:
    """Probability that a pixel of a defect stands higher in its map than a good one, of maps and masks [count, side, side]."""
    return ranking.auroc(maps[~masks], maps[masks])


def aupro(maps: Floats, masks: Masks) -> float:
    """Mean share found of a defect, over false positive rates up to 0.3. Each mask is one defect, in however many parts."""
    rates = np.linspace(0, MOST_FALSE, RATES)
    thresholds = np.quantile(maps[~masks], 1 - rates)
    found = [_above(each[mask], thresholds) for each, mask in zip(maps, masks, strict=True) if mask.any()]
    return float(np.trapezoid(np.mean(found, axis=0), rates) / MOST_FALSE)


def _above(values: Floats, thresholds: NDArray[np.floating]) -> NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(values), thresholds, side="right") / len(values)


def measures(look: Look, known: Tensor, test: Tensor, data: str) -> dict[str, Measure]:
    """Figures of the manifest: how well a model finds defects in half of the test images, and what is fitted to the known ones."""
    spoiled, masks = half_spoiled(test)
    maps, scores = look(spoiled)
    by_pca = pca_reconstruction(known, spoiled, COMPONENTS)
    others = Peak(test.shape[-1]).blurred((spoiled - by_pca).abs())
    whole = baselines(known, spoiled) | {f"maximum of the map of {PCA}": highest(others)}
    return of_maps(maps, others, masks, data) | of_images(scores, whole, masks, data)


def of_maps(maps: Tensor, others: Tensor, masks: Masks, data: str) -> dict[str, Measure]:
    """Figures of maps [count, channels, side, side], beside those of principal components."""
    own, other = (each.mean(1).numpy() for each in (maps, others))

    def figure(measured: Callable[[Floats, Masks], float]) -> Measure:
        return Measure(
            value=round(measured(own, masks), 4),
            higher_is_better=True,
            data=data,
            baseline=round(measured(other, masks), 4),
            baseline_name=PCA,
            note="synthetic scratches, holes and blotches in half of the images; the error map as it is served",
        )

    return {"defects.pixel_auroc": figure(pixel_auroc), "defects.aupro": figure(aupro)}


def of_images(scores: Scores, others: Scores, masks: Masks, data: str) -> dict[str, Measure]:
    """Figures of whole images' scores, beside those of other detectors."""
    spoiled = masks.any((1, 2))

    def aurocs(of: Scores) -> dict[str, float]:
        return {
            name: ranking.auroc(each.numpy()[~spoiled], each.numpy()[spoiled]) for name, each in of.items()
        }

    baseline, best, words = best_of(aurocs(others))
    return {
        f"defects.auroc.{name}": Measure(
            value=round(value, 4),
            higher_is_better=True,
            data=data,
            baseline=baseline,
            baseline_name=best,
            note=f"which images have one of these defects ({words})",
        )
        for name, value in aurocs(scores).items()
    }
