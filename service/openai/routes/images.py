"""POST /v1/images/generations, edits and variations."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pybase64 import b64encode_as_string

from deployments.errors import BadRequest, ModelFault
from deployments.messages import Card, Draw, ModelClient, Picture, Source, Usage
from service.answers import Answer, beside, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.items import read_picture
from service.openai.schemas.images import EditRequest, ImageRequest, Rendering, VariationRequest
from service.openai.seeds import draw_seed
from service.principal import principal_of
from service.sse import Events


class Images:
    """Draws pictures."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def generations(self, call: Call, body: ImageRequest) -> Answer:
        """Draw pictures of what a prompt says, of a class, or of whatever the model draws."""
        card = await self._catalogue.able(call, body.model, "generate_image")
        return await self._drawn(call, card, body, _message(call, body, body.prompt), "image_generation")

    async def edits(self, call: Call, body: EditRequest) -> Answer:
        """Change a picture: as a prompt says, where a mask says, or by one of the model's tasks."""
        card = await self._catalogue.able(call, body.model, "edit_image")
        mask = None if body.mask is None else read_picture(body.mask, "mask")
        source = Source(read_picture(body.image, "image"), mask, body.task, body.strength)
        return await self._drawn(call, card, body, _message(call, body, body.prompt, source), "image_edit")

    async def variations(self, call: Call, body: VariationRequest) -> Answer:
        """Draw others of a picture's kind."""
        card = await self._catalogue.able(call, body.model, "edit_image")
        source = Source(read_picture(body.image, "image"), strength=body.strength, variation=True)
        return await self._drawn(call, card, body, _message(call, body, body.prompt, source), "image_edit")

    async def _drawn(self, call: Call, card: Card, body: Rendering, request: Draw, event: str) -> Answer:
        call.version = card.version
        frame = {
            "output_format": body.output_format,
            "size": str(card.limits.get("size", "auto")) if body.size == "auto" else body.size,
            "background": body.background,
        }
        if body.stream:
            return Events(_events(call, self._models.pictures(request), event, frame))
        reply = await self._models.call(request)
        call.version, call.timings = reply.version, reply.timings
        data = []
        for output in reply.outputs:
            if output.image is None:
                raise ModelFault("The model drew no picture.")
            data.append(
                {
                    "b64_json": await _base64(output.image),
                    "seed": output.seed,
                    "steps": output.steps,
                    "version": reply.version,
                }
            )
        return json_answer({"created": int(time.time()), "data": data, **frame, "usage": _usage(reply.usage)})


async def _events(
    call: Call, source: AsyncGenerator[Picture, None], event: str, frame: dict[str, Any]
) -> AsyncGenerator[list[dict[str, Any]], None]:
    shown: dict[int, int] = {}  # previews of each picture
    created = int(time.time())
    async with aclosing(source):
        async for picture in source:
            fields = {
                "type": f"{event}.completed" if picture.final else f"{event}.partial_image",
                "index": picture.place,
                "b64_json": await _base64(picture.image),
                "created_at": created,
                "quality": "auto",
                **frame,
                "seed": picture.seed,
                "step": picture.step,
                "steps": picture.steps,
            }
            if picture.final:
                fields |= {"version": call.version, "usage": _usage(picture.usage)}
            else:
                fields["partial_image_index"] = shown.get(picture.place, 0)
                shown[picture.place] = shown.get(picture.place, 0) + 1
            yield [fields]


async def _base64(image: bytes) -> str:
    return await beside(len(image), b64encode_as_string, image)


def _usage(usage: Usage) -> dict[str, int]:
    tokens = usage.prompt_tokens
    return {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}


def _message(call: Call, body: Rendering, prompt: str, source: Source | None = None) -> Draw:
    compression = body.output_compression
    if body.output_format == "png" and compression not in (None, 100):
        raise BadRequest(
            "PNG is lossless: 'output_compression' is for jpeg and webp.", param="output_compression"
        )
    if body.partial_images and not body.stream:
        raise BadRequest("Previews are part of a stream: set 'stream'.", param="partial_images")
    width, _, height = body.size.partition("x")
    return Draw(
        model=body.model,
        prompt=prompt or None,
        request_id=call.id,
        n=body.n,
        seed=draw_seed() if body.seed is None else body.seed,
        seeded=body.seed is not None,
        size=(int(width), int(height)) if height else None,
        steps=body.steps,
        guidance=body.guidance_scale,
        negative=body.negative_prompt or None,
        solver=body.solver,
        truncation=body.truncation,
        source=source,
        previews=body.partial_images,
        format=body.output_format,
        quality=90 if compression is None else compression,
        background=body.background,
        timeout_seconds=call.timeout_seconds,
        principal=principal_of(call.fields),
        priority=body.priority,
    )
