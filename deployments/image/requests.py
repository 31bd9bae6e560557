"""What requests mean to a model that makes pictures in steps, and what comes of their rows. Knows no engine.

Reading and writing pictures and running the graphs around the denoiser takes long: beside the event loop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from deployments.config import HostConfig
from deployments.errors import BadRequest
from deployments.image.developing import Developing
from deployments.image.draw import check_no_style
from deployments.image.files import Files
from deployments.image.painting import Condition, Original, Painted, Painter, Painting, plan_back
from deployments.image.wording import Wording
from deployments.items import Items, vector
from deployments.latents import between
from deployments.messages import Array as Numbers
from deployments.messages import Decode, Draw, Encode, Interpolate, Item, Output, Picture, Source
from deployments.messages import Numbers as Given
from deployments.pictures import encode, fitted
from model_store.manifest import Manifest
from model_store.session import Array

# Share of the way from noise that is gone again where a request does not say: its words are to change the picture, or
# another of its kind is wanted.
_TRANSLATED: Final = 0.8
_VARIED: Final = 0.6


@dataclass(frozen=True, slots=True)
class Commission:
    """The pictures of one request. `kept`: pixels of the picture they begin from, and where these are to be made up."""

    works: Sequence[Painting]
    tokens: int  # of its words
    kept: tuple[Array, Array] | None = None


class Requests:
    """Prepares and finishes what is asked of one model."""

    def __init__(
        self, manifest: Manifest, wording: Wording, developing: Developing, config: HostConfig
    ) -> None:
        self._painter = Painter(manifest)
        image = self._painter.image
        self._wording = wording
        self._developing = developing
        self._files = Files(manifest, config)
        shape = (image.channels, image.height, image.width)
        self._items = Items(shape, image, config.max_image_pixels)
        self._size = (image.width, image.height)
        self.latent_size = math.prod(self._painter.latent)
        self.limits = self._painter.limits() | wording.limits

    # -- pictures ----------------------------------------------------------------------------------------------------

    def draw(self, request: Draw) -> Commission:
        """One painting for each picture. Raises BadRequest."""
        check_no_style(request)
        self._files.check(request)
        size, scale = self._painter.size(request.size), self._painter.guidance(request.guidance)
        condition, tokens = self._wording.condition(request.prompt or "", "prompt", size, scale)
        without, negative = self._without(request, size, scale)
        original, kept = self._original(request.source, size) if request.source else (None, None)
        works = self._painter.paintings(
            condition,
            without,
            n=request.n,
            seed=request.seed,
            steps=request.steps,
            guidance=scale,
            solver=request.solver,
            size=size,
            previews=request.previews,
            original=original,
        )
        return Commission(works, tokens + negative, kept)

    def _without(self, request: Draw, size: tuple[int, int], scale: float) -> tuple[Condition | None, int]:
        if scale > 1 and not self._painter.distilled:
            return self._wording.condition(request.negative or "", "negative_prompt", size, 1.0)
        if request.negative:
            why = "at a guidance scale of 1" if scale == 1 else "of a model that guides itself"
            raise BadRequest(f"A negative prompt has no meaning {why}.", param="negative_prompt")
        return None, 0

    def _original(self, source: Source, size: tuple[int, int]) -> tuple[Original, tuple[Array, Array] | None]:
        if not self._developing.both_ways:
            raise BadRequest("This model begins from noise alone.", code="task_not_supported", param="model")
        task = source.task or ("inpaint" if source.mask else "translate")
        if task not in ("inpaint", "translate"):
            raise BadRequest("This model edits by inpaint and translate.", code="unknown_task", param="task")
        if (task == "inpaint") != (source.mask is not None):
            raise BadRequest("To inpaint, and for nothing else, send a mask.", param="mask")
        sent = self._files.picture(source.image, "image")
        pixels = fitted(sent, size[1], size[0])
        strength = source.strength or (1.0 if source.mask else _VARIED if source.variation else _TRANSLATED)
        original = Original(self._developing.latent(pixels), strength)
        if source.mask is None:
            return original, None
        mask = fitted(self._files.mask(source.mask, sent, "mask"), size[1], size[0], nearest=True)
        each = self._painter.denoise.reduction
        coarse = mask.reshape(1, size[1] // each, each, size[0] // each, each).max((2, 4))
        return replace(original, made=coarse), (pixels, mask)

    def picture(self, request: Draw, commission: Commission, painted: Painted) -> Picture:
        """What a row shows, encoded. What is not to be made up is as it was sent."""
        pixels = self._developing.pixels(painted.latent)
        if commission.kept is not None:
            sent, mask = commission.kept
            pixels = np.where(mask > 0, pixels, sent)
        work = commission.works[painted.place]
        return Picture(
            painted.place,
            self._files.write(request, pixels, work.seed, work.steps),
            seed=work.seed,
            step=painted.step,
            steps=work.steps,
            final=painted.final,
        )

    # -- latents: a picture's is the noise that leads to it, where nothing guides ----------------------------------------

    def decode(self, request: Decode) -> list[Painting]:
        """One painting for each latent."""
        return self._forth(
            [self._vector(z, f"latents[{i}]") for i, z in enumerate(request.latents)], request.prompt
        )

    def encode(self, request: Encode) -> list[Painting]:
        """One painting for each item, back to its noise."""
        return self._back([(item, f"input[{i}]") for i, item in enumerate(request.items)], request.prompt)

    def ends(self, request: Interpolate) -> tuple[list[Array | None], list[Painting]]:
        """Both ends of a way, None where one is an item's, and the paintings that find those."""
        ends = ((request.start, "from"), (request.end, "to"))
        items = [(end, param) for end, param in ends if not isinstance(end, list | bytes)]
        known = [self._vector(end, param) if isinstance(end, list | bytes) else None for end, param in ends]
        return known, self._back(items, request.prompt)

    def interpolate(self, request: Interpolate, start: Array, end: Array) -> list[Painting]:
        """One painting for each step of the way."""
        way = between(start.ravel(), end.ravel(), request.steps, request.mode)
        return self._forth(way, request.prompt)

    def decoded(self, painted: Painted) -> Output:
        """A picture as PNG."""
        return Output(image=encode(self._developing.pixels(painted.latent)))

    def encoded(self, painted: Painted) -> Output:
        """A latent as numbers."""
        return Output(latent=Numbers((painted.latent.size,), painted.latent.astype("<f4").tobytes()))

    def _vector(self, numbers: Given, param: str) -> Array:
        return vector(numbers, self.latent_size, param)

    def _forth(self, latents: Sequence[Array], prompt: str | None) -> list[Painting]:
        condition, _ = self._wording.condition(prompt or "", "prompt", self._size, 1.0)
        works = self._painter.paintings(condition, guidance=1.0, n=len(latents))
        shaped = [latent.astype(np.float32).reshape(self._painter.latent) for latent in latents]
        return [replace(work, given=latent) for work, latent in zip(works, shaped, strict=True)]

    def _back(self, items: Sequence[tuple[Item, str]], prompt: str | None) -> list[Painting]:
        condition, _ = self._wording.condition(prompt or "", "prompt", self._size, 1.0)
        plan = plan_back(self._painter.denoise)
        works = self._painter.paintings(condition, guidance=1.0, n=len(items))
        return [
            replace(work, plan=plan, given=self._developing.latent(self._items.read(*item)))
            for work, item in zip(works, items, strict=True)
        ]
