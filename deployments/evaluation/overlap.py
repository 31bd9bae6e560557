"""How the features of made items lie among those of real ones: Frechet distance, nearest neighbours, Vendi. Knows no model.

Figures of different feature nets cannot be compared, nor Frechet distances of different numbers of items.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from deployments.evaluation.estimates import Sampling, estimate, mean
from deployments.evaluation.record import Figure
from model_store.ranking import Weights

Features = NDArray[np.float64]  # [items, width]

NEIGHBOURS: Final = 5
_COMPARED: Final = 5_000  # of either kind, every pair of which has a distance
_REPLICATES: Final = 100  # of what takes an eigendecomposition


def overlap(real: Features, made: Features, net: str, key: str) -> dict[str, Figure]:
    """Every figure of this page, for at least `NEIGHBOURS` + 1 items of either kind."""
    both = np.concatenate([real, made])
    sampling = Sampling(f"{key}:{net}:{len(made)}", np.repeat([0, 1], [len(real), len(made)]))
    count, of_net = len(real), f"in the features of {net}"

    def distance(weights: Weights) -> float:
        return frechet(moments(real, weights[:count]), moments(made, weights[count:]))

    def variety(weights: Weights) -> float:
        return vendi(both[count:], weights[count:])

    figures = {
        "frechet": estimate(
            distance,
            sampling,
            better=False,
            about=f"Frechet distance to the data {of_net}",
            replicates=_REPLICATES,
            centred=True,
            bounds=(0, np.inf),
        )
    }
    figures |= _neighbours(real[:_COMPARED], made[:_COMPARED], sampling.key, of_net)
    figures["vendi"] = estimate(
        variety,
        sampling,
        better=True,
        about=f"effective number of different pictures {of_net}; the data has {vendi(real, np.ones(count)):.3g}",
        replicates=_REPLICATES,
        centred=True,
        bounds=(1, np.inf),
    )
    return figures


def _neighbours(real: Features, made: Features, key: str, of_net: str) -> dict[str, Figure]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Each is a mean over items. The balls stay those of all items when items are drawn again.
    """
    distances = pairwise_distances(real, made)
    real_radius, made_radius = _radii(real), _radii(made)
    inside = distances <= real_radius[:, None]
    found = {
        "precision": (inside.any(0), "share of what is made that lies among the data"),
        "recall": ((distances <= made_radius).any(1), "share of the data that lies among what is made"),
        "density": (
            inside.sum(0) / NEIGHBOURS,
            "how densely the data lies around what is made; 1 as among itself",
        ),
        "coverage": (distances.min(1) <= real_radius, "share of the data with something made nearby"),
    }
    return {
        name: estimate(
            mean(values),
            Sampling.of(f"{key}:{len(values)}", len(values)),
            better=True,
            about=f"{about}, {of_net}",
        )
        for name, (values, about) in found.items()
    }


def agreement(
    real: tuple[Features, Sequence[str]], made: tuple[Features, Sequence[str]], net: str, key: str
) -> Figure:
    """How often what is made for a prompt lies nearest to a real item of that prompt; both with the prompt of each."""
    words, wanted = np.array(real[1][:_COMPARED]), np.array(made[1][:_COMPARED])
    nearest = pairwise_distances(made[0][:_COMPARED], real[0][:_COMPARED]).argmin(1)
    among = pairwise_distances(real[0][:_COMPARED])
    np.fill_diagonal(among, np.inf)
    own = (words[among.argmin(1)] == words).mean()
    return estimate(
        mean(words[nearest] == wanted),
        Sampling.of(f"{key}:{net}:{len(wanted)}:wanted", len(wanted)),
        better=True,
        about=f"share of what is drawn whose nearest picture of the data has the same prompt, in the features of {net}; "
        f"of the data itself {own:.3g}",
    )


def _radii(features: Features) -> Features:
    """Distance of each item to its k-th nearest other one."""
    radii: Features = np.partition(pairwise_distances(features), NEIGHBOURS, axis=1)[:, NEIGHBOURS]
    return radii


def moments(features: Features, weights: Weights) -> tuple[Features, Features]:
    """Mean, and a root R of the covariance R^T R with as few rows as there are items or features."""
    total = weights.sum()
    average = weights @ features / total
    rows = (features - average) * np.sqrt(weights / (total - 1))[:, None]
    if len(rows) <= rows.shape[1]:
        return average, rows
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return average, np.sqrt(values.clip(0))[:, None] * vectors.T


def frechet(a: tuple[Features, Features], b: tuple[Features, Features]) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^1/2) of two normal distributions, as (mean, root of the covariance)."""
    # With A = P^T P and B = Q^T Q the last trace is the sum of the singular values of P Q^T.
    shared = np.linalg.svd(a[1] @ b[1].T, compute_uv=False).sum()
    return float(np.square(a[0] - b[0]).sum() + np.square(a[1]).sum() + np.square(b[1]).sum() - 2 * shared)


def vendi(features: Features, weights: Weights) -> float:
    """Exponential of the entropy of the kernel's eigenvalues (Friedman and Dieng 2023), the kernel being the cosine.

    1 where all are alike, at most the number of items, and of dimensions: F F^T / n and F^T F / n have the same eigenvalues.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    rows = features / np.maximum(lengths, 1e-12) * np.sqrt(weights / weights.sum())[:, None]
    values = np.linalg.eigvalsh(rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T)
    values = values[values > 1e-12]
    values /= values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))
