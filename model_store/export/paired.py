"""An encoder and a decoder as one autoencoder. Knows neither where they come from nor what becomes of it."""

import torch
from torch import nn

from model_store.export.errors import GraphFailed


class Paired(nn.Module):
    """`encoder` and `decoder` each return a tuple of one tensor; `latent` is the shape of a row between them, if it is known."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: tuple[int, ...] | None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.latent = encoder, decoder, latent

    def reconstruct(self, items: torch.Tensor) -> dict[str, torch.Tensor]:
        """Reconstruction [batch, ...] and latent, [batch, n] where its shape is known."""
        latent = _only(self.encoder(items), "encoder")
        shown = latent if self.latent is None else latent.flatten(1)
        return {"reconstruction": _only(self.decoder(latent), "decoder"), "latent": shown}

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Items [batch, ...] of latents [batch, n]."""
        return _only(self.decoder(latent.unflatten(1, self.latent or (-1,))), "decoder")


def _only(found: tuple[torch.Tensor, ...], which: str) -> torch.Tensor:
    if len(found) != 1:
        raise GraphFailed(
            f"the {which} returns {len(found)} tensors, where one belongs: add a method that returns it alone"
        )
    return found[0]
