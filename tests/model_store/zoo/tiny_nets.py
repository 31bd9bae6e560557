"""Small nets of the picture recipes, which the exporter's process can make by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from torch import nn

from model_store.export.draft import Draft
from model_store.zoo import flow_unet, tiles_edit, tiles_net

UNET: Final = flow_unet.Config(
    channels=1, classes=10, widths=(8, 8, 16), outer=1, inner=1, condition=8, degree=4
)
WORDS: Final = tiles_net.Config(fine=8, coarse=16, layers=1, heads=2, words=8, readers=1, condition=8)
EDITOR: Final = tiles_edit.Config(widths=(4, 8), blocks=(1, 1))


def denoiser() -> flow_unet.Denoiser:
    """A small net of fashion-flow."""
    return flow_unet.Denoiser(UNET)


def text_to_image() -> tiles_net.TextToImage:
    """A small net of tiles-flow."""
    return tiles_net.TextToImage(WORDS)


def editor() -> tiles_edit.Editor:
    """A small net of tiles-edit."""
    return tiles_edit.Editor(EDITOR)


def made_by(draft: Draft, factory: Callable[[], nn.Module]) -> Draft:
    """The draft with its weights in another net than the recipe's own."""
    name = f"{factory.__module__}:{factory.__name__}"
    graphs = {
        key: replace(graph, factory=name) if graph.weights else graph for key, graph in draft.graphs.items()
    }
    return replace(draft, graphs=graphs)
