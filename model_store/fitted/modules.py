"""The fitted detectors as torch modules: all they know are buffers, so that a graph of them is exact and small.

Rows are independent to the last bit: sums are products with constants, because ONNX Runtime's own sum of a row depends on where
the row stands in memory.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FILE = "fitted.npz"

SPARE = 8
"""Nearest rows are found by a rounded distance, and this many more of them than wanted measured exactly."""


ROUNDS = 10
"""Of filling in missing values from components; 200 change the error by 0.022 deviations at most on five sets, half of the values hidden."""


def total(values: Tensor) -> Tensor:
    """Sums [...] over the last axis of values [..., n]."""
    return values @ values.new_ones(values.shape[-1])


def mean(values: Tensor) -> Tensor:
    """Means [...] over the last axis of values [..., n]."""
    return values @ values.new_full((values.shape[-1],), 1 / values.shape[-1])


class Detector(nn.Module):
    """Items of a shape, flattened and measured in the units of what was fitted."""

    centre: Tensor
    scale: Tensor

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        super().__init__()
        self.shape = tuple(int(size) for size in arrays.pop("shape"))
        for name, array in arrays.items():
            self.register_parameter(
                name, nn.Parameter(torch.from_numpy(np.asarray(array, np.float32)), requires_grad=False)
            )

    def measure(self, items: Tensor) -> Tensor:
        """[batch, features] of items [batch, ...]."""
        return (items.flatten(1) - self.centre) / self.scale


class Pca(Detector):
    """Principal components: items are redrawn from the first of them, and score by what is lost."""

    axes: Tensor  # [features, components]
    deviation: Tensor  # [components]
    rest: Tensor  # []: deviation along every other axis

    def encode(self, items: Tensor) -> Tensor:
        """Coordinates [batch, components] of items along the components."""
        return self.measure(items) @ self.axes

    def decode(self, latent: Tensor) -> Tensor:
        """Items [batch, ...] at these coordinates."""
        flat = (latent @ self.axes.T) * self.scale + self.centre
        items: Tensor = flat.unflatten(1, self.shape)
        return items

    def reconstruct(self, items: Tensor) -> tuple[Tensor, ...]:
        """Reconstruction, latent, error map, scores [batch] and contributions [batch, features] to the first of them.

        The scores are the squared distance under probabilistic PCA (Tipping and Bishop 1999), a mean over features where 1 is
        usual, and the mean absolute and squared error, in units of each feature's spread where items were standardized.
        """
        measured, latent = self.measure(items), self.encode(items)
        # In units: of a large number's small spread little would be left.
        lost = measured - latent @ self.axes.T
        white = (latent / self.deviation) @ self.axes.T + lost / self.rest
        errors, parts = lost.abs(), white.square()
        scores = mean(parts), mean(errors), mean(errors.square())
        return self.decode(latent), latent, errors.unflatten(1, self.shape), *scores, parts


class Mahalanobis(Detector):
    """Distance from the mean in units of the (shrunk) covariance."""

    whiten: Tensor  # [features, features]: the inverse square root of the covariance

    def forward(self, items: Tensor) -> tuple[Tensor, ...]:
        """Distances [batch], and what each feature contributes to their squares [batch, features] (Garthwaite and Koch 2016)."""
        parts = (self.measure(items) @ self.whiten).square()
        return total(parts).sqrt(), parts


class Neighbours(Detector):
    """Mean distance to the nearest of the rows that were kept."""

    kept: Tensor  # [rows, features], in units
    lengths: Tensor  # [rows]: half of their squares

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._nearest = int(arrays.pop("nearest"))
        super().__init__(arrays)

    def forward(self, items: Tensor) -> tuple[Tensor, ...]:
        """Mean distances [batch], and each feature's mean squared difference from the nearest rows [batch, features].

        |x - t|^2 / 2 = |x|^2 / 2 - xt + |t|^2 / 2 is one product for all rows, but small differences of large numbers: it
        only chooses which rows are measured by their differences.
        """
        measured = self.measure(items)
        rough = self.lengths - measured @ self.kept.T
        most = min(self._nearest + SPARE, len(self.kept))
        chosen = rough.topk(most, dim=1, largest=False).indices
        squares = (measured[:, None] - self.kept[chosen]).square()
        nearest, places = total(squares).topk(self._nearest, dim=1, largest=False)
        theirs = squares.gather(1, places[:, :, None].expand(-1, -1, squares.shape[2]))
        # From the left: ONNX Runtime 1.31 fuses a transposition into a product with a vector, and gets it wrong.
        return mean(nearest.sqrt()), (
            theirs.new_full((1, self._nearest), 1 / self._nearest) @ theirs
        ).squeeze(1)


class Incomplete(nn.Module):
    """A detector of table rows some of whose values are not known.

    A missing value counts as the mean. Components can do better: steps towards its mean under probabilistic PCA, given the others.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, items: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """What the detector says of rows [batch, features], whose values count where `known`, likewise, is 1."""
        found: tuple[Tensor, ...] = self.detector(items * known)
        return found

    def reconstruct(self, items: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """The same of components."""
        pca = self._components()
        given = filled = items * known
        certain = 1 - (pca.rest / pca.deviation).square()
        for _ in range(ROUNDS):
            filled = given + pca.decode(pca.encode(filled) * certain) * (1 - known)
        return pca.reconstruct(filled)

    def decode(self, latent: Tensor) -> Tensor:
        """Rows at these coordinates."""
        return self._components().decode(latent)

    def _components(self) -> Pca:
        if not isinstance(self.detector, Pca):
            raise TypeError("only components redraw rows")
        return self.detector


def _arrays(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / FILE, allow_pickle=False) as stored:
        return dict(stored)


def pca(folder: Path) -> nn.Module:
    """What was fitted into this folder."""
    return made(Pca, _arrays(folder)).eval()


def mahalanobis(folder: Path) -> nn.Module:
    """What was fitted into this folder."""
    return made(Mahalanobis, _arrays(folder)).eval()


def knn(folder: Path) -> nn.Module:
    """What was fitted into this folder."""
    return made(Neighbours, _arrays(folder)).eval()


def made(kind: type[Detector], arrays: dict[str, NDArray[Any]]) -> Detector | Incomplete:
    """A detector; with an array `incomplete`, of rows that may lack something."""
    incomplete = arrays.pop("incomplete", None) is not None
    detector = kind(arrays)
    return Incomplete(detector) if incomplete else detector


def cases(folder: Path) -> list[dict[str, NDArray[Any]]]:
    """Items to compare a graph on, drawn around what was fitted: no item of the data leaves with the package."""
    arrays, generator = _arrays(folder), np.random.default_rng(0)
    drawn = arrays["centre"] + arrays["scale"] * generator.standard_normal((3, len(arrays["centre"])))
    items = drawn.astype(np.float32).reshape(3, *arrays["shape"])
    whole = {"input": items}
    if "incomplete" in arrays:
        whole["known"] = (generator.random(items.shape) < 0.7).astype(np.float32)
    return [whole, {name: each[:1] for name, each in whole.items()}]
