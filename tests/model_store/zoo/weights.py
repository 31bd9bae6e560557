"""Weights for tests of untrained models: a recipe starts some matrices at zero, where nothing they read would matter."""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def drawn(module: Module) -> Module:
    """The module in evaluation mode, its matrices drawn so that they keep the size of what they read."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return module.eval()


def awake(module: Module) -> Module:
    """The module in evaluation mode, what starts at zero drawn too, by a seed: everything in it matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2, generator=generator)
    return module.eval()
