"""From a finished latent to a picture. Slow for large ones: it runs beside the event loop and the model's next step."""

from typing import Final

import numpy as np

from model_store.manifest import Manifest
from model_store.session import Array, Session

DECODE: Final = "decode"


class Developing:
    """One model's way from latents to pixels: its graph `decode`, or none where a latent is a picture already."""

    def __init__(self, manifest: Manifest, decode: Session | None = None) -> None:
        self._session = decode
        if decode is not None:
            graph = manifest.graphs[DECODE]
            (self._input,) = graph.inputs
            self._output = next(each.name for each in graph.outputs if each.role == "output")

    def pixels(self, latent: Array) -> Array:
        """Values in [0, 1], float32 [channels, height, width]. One picture a run: nothing depends on others. Raises RunFailed."""
        if self._session is None:
            return _within(latent * np.float32(0.5) + np.float32(0.5))
        feeds = {self._input.name: latent[None].astype(self._input.dtype)}
        (pictures,) = self._session.run(feeds, [self._output])
        return _within(pictures[0])


def _within(pixels: Array) -> Array:
    clipped: Array = np.clip(pixels, 0, 1).astype(np.float32)
    return clipped
