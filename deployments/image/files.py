"""Pictures as the files that requests ask for, with what they say of themselves."""

from deployments.messages import Draw
from deployments.pictures import encode, keeps_alpha, provenance
from model_store.imaging import Image
from model_store.manifest import Manifest
from model_store.session import Array


class Files:
    """Writes those of one model. `notes`: whether a file says that it is generated, by what, and how to make it again."""

    def __init__(self, manifest: Manifest, image: Image, *, notes: bool) -> None:
        self._name, self._version, self._channels = manifest.name, manifest.version, image.channels
        self._notes = notes

    def check(self, request: Draw) -> None:
        """Raise BadRequest where a file cannot be as it is asked for."""
        keeps_alpha(request.background, request.format, self._channels)

    def write(self, request: Draw, pixels: Array, seed: int | None = None, steps: int = 1) -> bytes:
        """Encode values in [0, 1], [channels, height, width]. Slow for large pictures: run it beside the event loop."""
        alpha = keeps_alpha(request.background, request.format, self._channels)
        notes = provenance(self._name, self._version, seed, steps) if self._notes else None
        return encode(pixels, request.format, request.quality, alpha=alpha, notes=notes)
