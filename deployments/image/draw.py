"""What a request for pictures means to a one-step generator: noise and class in, encoded pictures out.

One in two graphs makes a style of them first, which is moved towards the mean style in between.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from deployments.errors import BadRequest
from deployments.image.choices import Classes, check_size
from deployments.image.files import Files
from deployments.messages import Draw, Output
from deployments.oneshot import Result, Task
from deployments.randomness import noise, seed_of
from model_store.manifest import Manifest
from model_store.session import Array


class Drawing:
    """Prepares and finishes `Draw` requests of one model."""

    def __init__(self, manifest: Manifest, files: Files, mean_style: Array | None = None) -> None:
        image = manifest.image
        if image is None or image.generator is None or image.noise is None:
            raise ValueError(f"{manifest.name} does not draw")
        self.image, self._files, self._mean_style = image, files, mean_style
        self._generator, self._noise = image.generator, image.noise
        self.graph = image.style.mapping if image.style else self._generator
        tensors = {tensor.role: tensor for tensor in manifest.graphs[self.graph].inputs}
        self._size = int(tensors[self._noise].shape[-1])
        self._takes_class = "class_id" in tensors
        self._classes = Classes(image.classes)

    def prepare(self, request: Draw) -> list[Task]:
        """One task a picture. Raises BadRequest."""
        check_one_step(request)
        self._files.check(request)
        check_size(request.size, [(self.image.width, self.image.height)])
        feeds: dict[str, Array] = {}
        if self._takes_class:
            feeds["class_id"] = np.asarray(self._classes.place(request.prompt or "", "prompt"), np.int64)
        elif request.prompt:
            raise BadRequest("This model draws unconditionally: leave the prompt empty.", param="prompt")
        truncation = self._truncation(request)
        return [
            self._task({**feeds, self._noise: noise(seed_of(request, i), 0, self._size)}, truncation, i)
            for i in range(request.n)
        ]

    def _truncation(self, request: Draw) -> float:
        if self.image.style:
            return self.image.style.truncation if request.truncation is None else request.truncation
        check_no_style(request)
        return 1.0

    def _task(self, feeds: dict[str, Array], truncation: float, place: int) -> Task:
        if self._mean_style is None:
            return Task(self.graph, feeds, ("output",), place)
        then = partial(self._of_style, self._mean_style, np.float32(truncation), place)
        return Task(self.graph, feeds, ("style",), place, then)

    def _of_style(self, mean: Array, truncation: np.float32, place: int, result: Result) -> Task:
        style = result["style"]
        moved = mean + truncation * (style - mean) if truncation < 1 else style
        return Task(self._generator, {"style": moved}, ("output",), place)

    def finish(self, request: Draw, results: Sequence[Result]) -> tuple[Output, ...]:
        """Encode the pictures. Slow: run it beside the event loop."""
        seeds = [seed_of(request, place) for place in range(request.n)]
        return tuple(
            Output(image=self._files.write(request, result["output"], seed), seed=seed)
            for seed, result in zip(seeds, results, strict=True)
        )


def check_no_style(request: Draw) -> None:
    """Raise BadRequest for what only models can do that draw by styles."""
    if request.truncation not in (None, 1):
        raise BadRequest("This model has no styles to truncate: leave it at 1.", param="truncation")


def check_one_step(request: Draw) -> None:
    """Raise BadRequest for what only models can do that draw in steps."""
    if request.steps not in (None, 1):
        raise BadRequest("This model draws in one step.", code="invalid_steps", param="steps")
    if request.guidance not in (None, 1):
        raise BadRequest(
            "This model cannot be guided: leave it at 1.", code="invalid_guidance", param="guidance_scale"
        )
    if request.negative:
        raise BadRequest("This model cannot be guided away from anything.", param="negative_prompt")
    if request.solver is not None:
        raise BadRequest(
            "This model draws in one step and is not solved.", code="invalid_solver", param="solver"
        )
