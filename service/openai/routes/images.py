"""POST /v1/images/generations."""

import time
from binascii import b2a_base64

from deployments.errors import BadRequest, ModelFault
from deployments.messages import Draw, ModelClient
from service.answers import Answer, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.schemas.images import ImageRequest
from service.openai.seeds import draw_seed


class Images:
    """Draws pictures."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def generations(self, call: Call, body: ImageRequest) -> Answer:
        """Draw pictures of a class, or of whatever the model draws."""
        await self._catalogue.able(call, body.model, "generate_image")
        request = _message(call, body)
        reply = await self._models.call(request)
        call.version, call.timings = reply.version, reply.timings
        data = []
        for output in reply.outputs:
            if output.image is None:
                raise ModelFault("The model drew no picture.")
            data.append(
                {
                    "b64_json": b2a_base64(output.image, newline=False).decode(),
                    "seed": request.seed,
                    "steps": output.steps,
                }
            )
        fields = {
            "created": int(time.time()),
            "data": data,
            "output_format": body.output_format,
            "size": body.size,
        }
        return json_answer(fields)


def _message(call: Call, body: ImageRequest) -> Draw:
    compression = body.output_compression
    if body.output_format == "png" and compression not in (None, 100):
        raise BadRequest(
            "PNG is lossless: 'output_compression' is for jpeg and webp.", param="output_compression"
        )
    width, _, height = body.size.partition("x")
    return Draw(
        model=body.model,
        prompt=body.prompt or None,
        request_id=call.id,
        n=body.n,
        seed=draw_seed() if body.seed is None else body.seed,
        size=(int(width), int(height)) if height else None,
        format=body.output_format,
        quality=90 if compression is None else compression,
        timeout_seconds=call.timeout_seconds,
    )
