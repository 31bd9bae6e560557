"""Detectors that are fitted to what a model learns from, and stand beside it: principal components, Mahalanobis, nearest neighbours.

Knows no model and no data.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import torch
from torch import Tensor

from model_store.fitted.fit import fit
from model_store.fitted.recipe import Kind, Recipe

Scores: TypeAlias = dict[str, Tensor]
"""Each [images], by name."""

COMPONENTS: Final = 32
PCA: Final = f"PCA with {COMPONENTS} components"
BASELINES: Final[Mapping[str, tuple[Kind, int | None]]] = {
    f"probabilistic {PCA}": ("pca", COMPONENTS),
    "Mahalanobis distance": ("mahalanobis", None),
    "5 nearest neighbours": ("knn", 5),
}


def baselines(known: Tensor, images: Tensor) -> Scores:
    """Scores of the detectors that `atelier fit` fits, by what they are."""
    found = {}
    for name, (kind, count) in BASELINES.items():
        few = min(count, len(known) - 1) if count else None  # a class of a small set
        first, *_ = fit(known.numpy(), Recipe(kind, few)).scores(images.numpy()).values()
        found[name] = torch.from_numpy(first)
    return found


def best_of(aurocs: Mapping[str, float]) -> tuple[float, str, str]:
    """The best of the baselines' AUROCs, its name, and words with all of them."""
    best = max(aurocs, key=lambda name: aurocs[name])
    words = ", ".join(f"{name} {value:.4f}" for name, value in aurocs.items())
    return round(aurocs[best], 4), best, words
