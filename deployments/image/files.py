"""The files that pictures come and go in, with what they say of themselves. Slow for large ones: beside the event loop."""

from deployments.config import HostConfig
from deployments.messages import Draw
from deployments.pictures import encode, keeps_alpha, provenance, read_mask, read_picture
from model_store.manifest import Manifest
from model_store.session import Array


class Files:
    """Reads and writes those of one model."""

    def __init__(self, manifest: Manifest, config: HostConfig) -> None:
        if manifest.image is None:
            raise ValueError(f"{manifest.name} has no pictures")
        self._name, self._version, self._channels = manifest.name, manifest.version, manifest.image.channels
        self._notes, self._most_pixels = config.provenance, config.max_image_pixels

    def picture(self, data: bytes, param: str) -> Array:
        """Values in [0, 1], [channels, height, width], of the picture's own size. Raises BadRequest."""
        return read_picture(data, self._channels, param, self._most_pixels)

    def mask(self, data: bytes, picture: Array, param: str) -> Array:
        """1 where the picture is to be made up, float32 [1, height, width]. Raises BadRequest."""
        return read_mask(data, (picture.shape[2], picture.shape[1]), param, self._most_pixels)

    def check(self, request: Draw) -> None:
        """Raise BadRequest where a file cannot be as it is asked for."""
        keeps_alpha(request.background, request.format, self._channels)

    def write(self, request: Draw, pixels: Array, seed: int | None = None, steps: int = 1) -> bytes:
        """Encode values in [0, 1], [channels, height, width]."""
        alpha = keeps_alpha(request.background, request.format, self._channels)
        notes = provenance(self._name, self._version, seed, steps) if self._notes else None
        return encode(pixels, request.format, request.quality, alpha=alpha, notes=notes)
