"""Anomaly scores as parts of a graph, [batch] each, higher the less normal. Knows no model; SSIM is in `fashion_metrics`."""

from typing import Final

import torch
from torch import Tensor, nn

SMALLEST: Final = 1e-6
"""Below which a score is taken for this."""

WIDE: Final = 16
"""Copies of each score whose logarithms are taken. ONNX Runtime rounds logarithms that fill a vector register otherwise than those left
over at the end of a batch: so each row fills whole ones."""


def l1(error_map: Tensor) -> Tensor:
    """Mean of an error map [batch, ...]."""
    return error_map.flatten(1).mean(1)


def l2(error_map: Tensor) -> Tensor:
    """Mean square of an error map [batch, ...]."""
    return error_map.flatten(1).square().mean(1)


def highest(error_map: Tensor) -> Tensor:
    """Greatest value of the mean over channels of a map [batch, channels, ...]."""
    return error_map.mean(1).flatten(1).amax(1)


class Peak(nn.Module):
    """Greatest value of an error map [batch, channels, side, side] blurred by a Gaussian that is clipped at the border.

    A small defect stands out of it that a mean over the picture hides. A fixed side makes the blur two products with one
    small matrix, as in `StructuralSimilarity`.
    """

    blur: Tensor

    def __init__(self, side: int, sigma: float = 1.5) -> None:
        super().__init__()
        place = torch.arange(side, dtype=torch.float32)
        weight = (-0.5 * ((place[:, None] - place[None, :]) / sigma).square()).exp()
        self.register_buffer("blur", weight / weight.sum(1, keepdim=True), persistent=False)

    def blurred(self, error_map: Tensor) -> Tensor:
        """The map [batch, channels, side, side] that the peak is the highest place of."""
        blurred: Tensor = self.blur @ error_map @ self.blur.T
        return blurred

    def forward(self, error_map: Tensor) -> Tensor:
        """Of the mean over channels."""
        return highest(self.blurred(error_map))


class Mahalanobis(nn.Module):
    """Distance of latents [batch, latent] from the normal ones it was made of [items, latent], in their own spread.

    The covariance is drawn a hundredth towards a multiple of the identity, so that it can always be inverted.
    """

    mean: Tensor
    whiten: Tensor

    def __init__(self, normal: Tensor, shrinkage: float = 0.01) -> None:
        super().__init__()
        latents = normal.double()
        covariance = latents.T.cov().reshape(latents.shape[1], latents.shape[1])
        size = covariance.trace() / len(covariance)
        covariance = (1 - shrinkage) * covariance + shrinkage * size.clamp_min(1e-12) * torch.eye(
            len(covariance), dtype=torch.float64
        )
        self.register_buffer("mean", latents.mean(0).float())
        # cov^-1 = L^-T L^-1: the length of L^-1 (z - mean) is the distance.
        self.register_buffer("whiten", torch.linalg.inv(torch.linalg.cholesky(covariance)).T.float())

    def forward(self, latent: Tensor) -> Tensor:
        """Distances [batch]."""
        return ((latent - self.mean) @ self.whiten).square().sum(1).sqrt()


class Fused(nn.Module):
    """Sum of the logarithms of several scores, each in the spread it has on normal items [items, scores]: z-score fusion.

    What one of them misses another may see (Jain, Nandakumar and Ross 2005). Logarithms, because scores are positive and skewed.
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, normal: Tensor) -> None:
        super().__init__()
        logs = normal.double().clamp_min(SMALLEST).log()
        weight = 1 / logs.std(0).clamp_min(SMALLEST)
        self.register_buffer("weight", weight.float())
        self.register_buffer("offset", (logs.mean(0) @ weight).float())

    def forward(self, scores: Tensor) -> Tensor:
        """Fused scores [batch] of scores [batch, scores]; a product, because rows of ONNX Runtime's sums depend on their address."""
        wide = scores.clamp_min(SMALLEST)[:, :, None].expand(-1, -1, WIDE).flatten(1)
        fused: Tensor = wide.log() @ (self.weight / WIDE).repeat_interleave(WIDE) - self.offset
        return fused
