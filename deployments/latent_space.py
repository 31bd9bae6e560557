"""What a package says of its model's latents: how many axes they have, and where on each they lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.compression import Ranges
from deployments.errors import BadRequest
from deployments.items import Items, vector
from deployments.messages import Numbers
from deployments.messages.latents import Unit
from model_store.calibrations import Latents
from model_store.imaging import Image
from model_store.manifest import Manifest
from model_store.session import Array

# Standard deviations on either side of the mean that the levels of a compressed latent span.
_SPAN: Final = 4.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of latents along each axis, float64 [size]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def ranges(self) -> Ranges:
        """Where nearly all latents are."""
        reach = _SPAN * self.deviation
        return Ranges.between(self.mean - reach, self.mean + reach)


@dataclass(frozen=True, slots=True)
class LatentSpace:
    """Of one model. `items` reads the pictures that it encodes, None where its items are none."""

    size: int
    key: bytes  # tells this version of the model from all others
    spread: Spread | None
    items: Items | None

    @property
    def ranges(self) -> Ranges | None:
        """Of its latents' levels, where the package says how far they spread."""
        return self.spread.ranges() if self.spread else None

    def vectors(self, latents: Sequence[tuple[Numbers, str]]) -> list[Array]:
        """Latents as a client sent them, each with its place in the request. Raises BadRequest."""
        return [vector(numbers, self.size, param) for numbers, param in latents]

    def places(self, axis: int, low: float, high: float, steps: int, unit: Unit) -> list[float]:
        """So many places on an axis, both ends included, in its own numbers. Raises BadRequest."""
        if axis >= self.size:
            raise BadRequest(f"This model's latents have {self.size} axes, counted from 0.", param="axis")
        mean, scale = 0.0, 1.0
        if unit == "deviation":
            if self.spread is None:
                raise BadRequest(
                    "This model does not say how far its latents spread: use the unit 'value'.",
                    code="unknown_spread",
                    param="unit",
                )
            mean, scale = float(self.spread.mean[axis]), float(self.spread.deviation[axis])
        if max(abs(mean + scale * low), abs(mean + scale * high)) > float(np.finfo(np.float32).max):
            raise BadRequest("The places must be finite in float32.", code="not_finite", param="range")
        places: list[float] = (mean + scale * np.linspace(low, high, steps)).tolist()
        return places


def latent_size(manifest: Manifest) -> int:
    """Numbers in a latent of a model that decodes it in one step, else 0."""
    decode = manifest.graphs.get("decode")
    sizes = [tensor.shape[-1] for tensor in decode.inputs if tensor.role == "latent"] if decode else []
    return int(sizes[0]) if sizes else 0


def space_of(
    manifest: Manifest, size: int, most_pixels: int, known: Latents | None = None
) -> LatentSpace | None:
    """Of latents of so many numbers; None where there are none. `known`: those of normal items."""
    if not size:
        return None
    image = manifest.image
    items = None
    if image and image.resize.mode != "keep":  # what is decoded has one size
        items = Items((image.channels, image.height, image.width), image, most_pixels)
    return LatentSpace(size, manifest.digest.encode(), _spread(image, size, known), items)


def _spread(image: Image | None, size: int, known: Latents | None) -> Spread | None:
    # Of latents that pictures are drawn from: a VAE's encoder is trained to that, and a flow's leads back to it.
    if image and (image.noise == "latent" or (image.denoise is not None and image.denoise.betas is None)):
        return Spread(np.zeros(size), np.ones(size))
    if known is None or len(known.mean) != size:
        return None
    return Spread(np.asarray(known.mean), np.asarray(known.spread))
