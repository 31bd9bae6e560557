"""POST /v1/latents/encode, decode, interpolate."""

from collections.abc import Sequence
from typing import Any

from deployments.errors import ModelFault
from deployments.messages import Decode, Encode, Interpolate, Item, ModelClient, Numbers, Output
from service.answers import Answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.items import numbers, read_item, read_items, write_output
from service.openai.routes.items import listed
from service.openai.schemas.items import DecodeRequest, EncodeRequest, InputItem, InterpolateRequest


class Latents:
    """Encodes, decodes, and what is done between the two."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def encode(self, call: Call, body: EncodeRequest) -> Answer:
        """Encode items as latent vectors."""
        await self._catalogue.able(call, body.model, "encode")
        request = Encode(
            model=body.model,
            items=read_items(body.input),
            prompt=body.prompt or None,
            request_id=call.id,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._models.call(request)
        data = [_latent(index, output) for index, output in enumerate(reply.outputs)]
        return listed(call, body.model, reply, data)

    async def decode(self, call: Call, body: DecodeRequest) -> Answer:
        """Decode latent vectors."""
        await self._catalogue.able(call, body.model, "decode")
        request = Decode(
            model=body.model,
            latents=tuple(body.latents),
            prompt=body.prompt or None,
            request_id=call.id,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._models.call(request)
        return listed(call, body.model, reply, _decoded(reply.outputs))

    async def interpolate(self, call: Call, body: InterpolateRequest) -> Answer:
        """Decode the way from one latent to another."""
        await self._catalogue.able(call, body.model, "interpolate")
        request = Interpolate(
            model=body.model,
            start=_end(body.from_, "from"),
            end=_end(body.to, "to"),
            steps=body.steps,
            mode=body.mode,
            prompt=body.prompt or None,
            request_id=call.id,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._models.call(request)
        return listed(call, body.model, reply, _decoded(reply.outputs))


def _end(end: InputItem | list[Any], place: str) -> Item | Numbers:
    return read_item(end, place) if isinstance(end, InputItem) else end


def _latent(index: int, output: Output) -> dict[str, Any]:
    if output.latent is None:
        raise ModelFault("The model made no latent.")
    fields: dict[str, Any] = {"index": index, "object": "latent", "latent": numbers(output.latent)}
    if output.spread is not None:
        fields["spread"] = numbers(output.spread)
    return fields


def _decoded(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [
        {"index": index, "object": "output", "output": write_output(output, None)}
        for index, output in enumerate(outputs)
    ]
