"""What stands between a picture and what the flow net sees of it. Has no weights and knows no net."""

from typing import Final

import torch
from torch import Tensor, nn

from model_store.zoo.tiles import straight

SLACK: Final = 0.06
"""Alpha this near to nothing, or to all, is meant to be that: a net hardly ever says either exactly."""


class Pixels(nn.Module):
    """Between RGBA pictures [batch, 4, H, W] in [0, 1] and latents of that shape: premultiplied, in [-1, 1]."""

    def encode(self, images: Tensor) -> Tensor:
        """Latents of pictures; whatever colour the invisible has is forgotten."""
        alpha = images[:, 3:]
        return torch.cat([images[:, :3] * alpha, alpha], dim=1) * 2.0 - 1.0

    def decode(self, latent: Tensor) -> Tensor:
        """Pictures of latents."""
        return straight(self.premultiplied(latent))

    def premultiplied(self, latent: Tensor) -> Tensor:
        """Premultiplied pictures of latents; no colour is brighter than its alpha."""
        values = (latent + 1.0) / 2.0
        alpha = ((values[:, 3:] - SLACK) / (1.0 - 2.0 * SLACK)).clamp(0.0, 1.0)
        return torch.cat([torch.minimum(values[:, :3].clamp_min(0.0), alpha), alpha], dim=1)
