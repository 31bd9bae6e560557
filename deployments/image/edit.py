"""What a request to change a picture means to a model that does so in one run of its graph `edit`."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from deployments.errors import BadRequest
from deployments.image.draw import check_no_style, check_one_step
from deployments.image.files import Files
from deployments.messages import Draw, Output, Source
from deployments.oneshot import Result, Task
from deployments.pictures import fitted
from model_store.imaging import EditTask
from model_store.manifest import Manifest
from model_store.session import Array

EDIT: Final = "edit"
_UNREAD: Final = {
    "prompt": "This model reads no words: leave the prompt empty.",
    "seed": "This model edits without chance and takes no seed.",
    "strength": "This model edits as far as it takes.",
}


class Editing:
    """Prepares and finishes such requests of one model. Slow: pictures are read and written."""

    def __init__(self, manifest: Manifest, files: Files) -> None:
        image = manifest.image
        if image is None or image.edit is None:
            raise ValueError(f"{manifest.name} does not edit pictures")
        self._part, self._files = image.edit, files
        taken = {tensor.role: tensor for tensor in manifest.graphs[EDIT].inputs}
        self._masked = "mask" in taken
        height, width = taken["input"].shape[2:]
        self._fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        self.limits: dict[str, object] = {"tasks": list(self._part.tasks)}
        if self._fixed is None:
            self.limits["largest_side"] = self._part.largest
        if "upscale" in self._part.tasks:
            self.limits["scale"] = self._part.scale

    def prepare(self, request: Draw) -> list[Task]:
        """One task. Raises BadRequest."""
        source = _source(request)
        self._check(request, source)
        self._files.check(request)
        task = self._task(source)
        scale = self._part.scale if task == "upscale" else 1
        sent = self._files.picture(source.image, "image")
        size = self._size(sent, scale, request)
        shown = fitted(sent, *size).repeat(scale, 1).repeat(scale, 2)
        feeds: dict[str, Array] = {"input": shown, "task": np.asarray(self._part.tasks.index(task), np.int64)}
        if self._masked:
            feeds["mask"] = np.zeros((1, *shown.shape[1:]), np.float32)
        if source.mask is not None:
            mask = self._files.mask(source.mask, sent, "mask")
            feeds["mask"] = fitted(mask, *size, nearest=True)
        return [Task(EDIT, feeds, ("output",))]

    def finish(self, request: Draw, results: Sequence[Result]) -> tuple[Output, ...]:
        """The picture that comes out, encoded."""
        return tuple(Output(image=self._files.write(request, result["output"])) for result in results)

    def _size(self, sent: Array, scale: int, request: Draw) -> tuple[int, int]:
        """Height and width of what is shown to the model, before it is enlarged."""
        height, width = (side // scale for side in self._fixed) if self._fixed else sent.shape[1:]
        sides = (height * scale, width * scale)
        if max(sides) > self._part.largest and not self._fixed:
            raise BadRequest(
                f"This model edits up to {self._part.largest // scale} pixels a side.",
                code="image_too_large",
                param="image",
            )
        if any(side % self._part.multiple for side in sides):
            raise BadRequest(
                f"The sides of what this model edits are multiples of {self._part.multiple} pixels.",
                code="invalid_size",
                param="image",
            )
        if request.size not in (None, sides[::-1]):
            raise BadRequest(f"What comes out is {sides[1]}x{sides[0]}.", code="invalid_size", param="size")
        return height, width

    def _check(self, request: Draw, source: Source) -> None:
        check_one_step(request)
        check_no_style(request)
        given = {"prompt": request.prompt, "seed": request.seeded or None, "strength": source.strength}
        for field, message in _UNREAD.items():
            if given[field] is not None:
                raise BadRequest(message, param=field)
        if request.n > 1:
            raise BadRequest("This model edits without chance: one picture is all there is.", param="n")
        if source.variation:
            raise BadRequest(
                "This model edits pictures and makes no variations.", code="task_not_supported", param="model"
            )

    def _task(self, source: Source) -> EditTask:
        tasks = self._part.tasks
        known = ", ".join(tasks)
        implied = "inpaint" if source.mask is not None else tasks[0] if len(tasks) == 1 else None
        task = source.task or implied
        if task is None:
            raise BadRequest(f"Say what to do: {known}.", code="missing_required_parameter", param="task")
        if task not in tasks:
            raise BadRequest(f"This model's tasks are: {known}.", code="unknown_task", param="task")
        if (task == "inpaint") != (source.mask is not None):
            raise BadRequest("To inpaint, and for nothing else, send a mask.", param="mask")
        return task


def _source(request: Draw) -> Source:
    if request.source is None:
        raise ValueError("there is no picture to edit")
    return request.source
