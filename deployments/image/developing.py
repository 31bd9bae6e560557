"""Between pictures and latents. Slow for large ones: it runs beside the event loop and the model's next step."""

from typing import Final

import numpy as np

from model_store.manifest import Manifest
from model_store.session import Array, Session

DECODE: Final = "decode"
ENCODE: Final = "encode"


class Developing:
    """One model's ways from latents to pixels and back: its graphs, or none where a latent is a picture already.

    One picture a run: nothing depends on others.
    """

    def __init__(
        self, manifest: Manifest, decode: Session | None = None, encode: Session | None = None
    ) -> None:
        self._decode = _Way(manifest, DECODE, decode, "output") if decode else None
        self._encode = _Way(manifest, ENCODE, encode, "latent") if encode else None
        # A latent that only `decode` makes a picture of has no way back.
        self.both_ways = decode is None or encode is not None

    def pixels(self, latent: Array) -> Array:
        """Values in [0, 1], float32 [channels, height, width]. Raises RunFailed."""
        if self._decode is None:
            return _within(latent * np.float32(0.5) + np.float32(0.5))
        return _within(self._decode(latent))

    def latent(self, pixels: Array) -> Array:
        """What the model works on, of values in [0, 1]. Raises RunFailed."""
        if self._encode is None:
            return pixels * np.float32(2) - np.float32(1)
        return self._encode(pixels).astype(np.float32)


class _Way:
    def __init__(self, manifest: Manifest, name: str, session: Session, role: str) -> None:
        graph = manifest.graphs[name]
        (self._input,) = graph.inputs
        self._output = next(each.name for each in graph.outputs if each.role == role)
        self._session = session

    def __call__(self, array: Array) -> Array:
        feeds = {self._input.name: array[None].astype(self._input.dtype)}
        (made,) = self._session.run(feeds, [self._output])
        alone: Array = made[0]
        return alone


def _within(pixels: Array) -> Array:
    clipped: Array = np.clip(pixels, 0, 1).astype(np.float32)
    return clipped
