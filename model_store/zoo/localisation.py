"""How well anomaly maps show where synthetic defects are: pixel AUROC and AUPRO (Bergmann et al. 2020). Knows no model."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import ranking
from model_store.manifest import Measure
from model_store.zoo.defects import Floats, Masks, spoil

Scores: TypeAlias = Mapping[str, Tensor]

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


def measures(
    maps: Tensor, baseline: Tensor, scores: Scores, masks: Masks, data: str, name: str
) -> dict[str, Measure]:
    """Figures of the manifest, of maps [count, side, side] beside those of a baseline, and of scores [count] of whole images."""
    spoiled = masks.any((1, 2))

    def figure(value: float, note: str, beside: float | None = None) -> Measure:
        return Measure(
            value=round(value, 4),
            higher_is_better=True,
            data=data,
            baseline=None if beside is None else round(beside, 4),
            baseline_name=None if beside is None else name,
            note=note,
        )

    note = "synthetic scratches, holes and blotches in half of the images; the error map as it is served"
    own, other = maps.numpy(), baseline.numpy()
    found = {
        "defects.pixel_auroc": figure(pixel_auroc(own, masks), note, pixel_auroc(other, masks)),
        "defects.aupro": figure(aupro(own, masks), note, aupro(other, masks)),
    }
    for score, values in scores.items():
        whole = ranking.auroc(values.numpy()[~spoiled], values.numpy()[spoiled])
        found[f"defects.auroc.{score}"] = figure(whole, "which images have one of these defects")
    return found
