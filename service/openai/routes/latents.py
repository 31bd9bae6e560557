"""POST /v1/latents/encode, decode, interpolate, traverse, combine."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pybase64 import b64encode_as_string

from deployments.errors import ModelFault
from deployments.messages import Decode, Encode, Interpolate, Item, ModelClient, Numbers, Output
from deployments.messages.latents import Combine, Compress, Compression, Decompress, File, Group, Traverse
from service.answers import Answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.items import finite, numbers, read_base64, read_item, read_items, write_output
from service.openai.routes.items import listed
from service.openai.schemas.items import DecodeRequest, EncodeRequest, InputItem, InterpolateRequest
from service.openai.schemas.latents import CombineRequest, LatentGroup, TraverseRequest

Asked: TypeAlias = EncodeRequest | DecodeRequest | InterpolateRequest | TraverseRequest | CombineRequest


class Latents:
    """Encodes, decodes, and what is done between the two."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def encode(self, call: Call, body: EncodeRequest) -> Answer:
        """Encode items as latent vectors, or compress these."""
        await self._catalogue.able(call, body.model, "encode")
        if body.encoding_format == "int8":
            return await self._compress(call, body)
        request = Encode(items=read_items(body.input), **_shared(call, body))
        reply = await self._models.call(request)
        data = [_latent(index, output) for index, output in enumerate(reply.outputs)]
        return listed(call, body.model, reply, data)

    async def decode(self, call: Call, body: DecodeRequest) -> Answer:
        """Decode latent vectors, or what was compressed."""
        await self._catalogue.able(call, body.model, "decode")
        shared = _shared(call, body)
        request = (
            Decompress(data=read_base64(body.latents, "latents"), **shared)
            if isinstance(body.latents, str)
            else Decode(latents=tuple(body.latents), **shared)
        )
        reply = await self._models.call(request)
        return listed(call, body.model, reply, _decoded(reply.outputs))

    async def interpolate(self, call: Call, body: InterpolateRequest) -> Answer:
        """Decode the way from one latent to another."""
        await self._catalogue.able(call, body.model, "interpolate")
        request = Interpolate(
            start=_end(body.from_, "from"),
            end=_end(body.to, "to"),
            steps=body.steps,
            mode=body.mode,
            **_shared(call, body),
        )
        reply = await self._models.call(request)
        return listed(call, body.model, reply, _decoded(reply.outputs))

    async def traverse(self, call: Call, body: TraverseRequest) -> Answer:
        """Decode a latent with one axis at several places."""
        await self._catalogue.able(call, body.model, "decode")
        low, high = body.range
        request = Traverse(
            start=_end(body.from_, "from"),
            axis=body.axis,
            low=low,
            high=high,
            steps=body.steps,
            unit=body.unit,
            **_shared(call, body),
        )
        reply = await self._models.call(request)
        data = [
            {**shown, "value": finite(output.value)}
            for shown, output in zip(_decoded(reply.outputs), reply.outputs, strict=True)
        ]
        return listed(call, body.model, reply, data)

    async def combine(self, call: Call, body: CombineRequest) -> Answer:
        """Decode a weighted sum of means."""
        await self._catalogue.able(call, body.model, "decode")
        request = Combine(groups=_groups(body.groups), **_shared(call, body))
        reply = await self._models.call(request)
        data = [
            {**shown, "latent": _numbers(output)}
            for shown, output in zip(_decoded(reply.outputs), reply.outputs, strict=True)
        ]
        return listed(call, body.model, reply, data)

    async def _compress(self, call: Call, body: EncodeRequest) -> Answer:
        request = Compress(items=read_items(body.input), **_shared(call, body))
        reply = await self._models.call(request)
        data = [
            {**_latent(index, output), "psnr": _ratio(output.psnr)}
            for index, output in enumerate(reply.outputs)
        ]
        return listed(call, body.model, reply, data, compressed=_compressed(reply.compression))


def _shared(call: Call, body: Asked) -> dict[str, Any]:
    """What all of them say to the model."""
    return {
        "model": body.model,
        "prompt": body.prompt or None,
        "request_id": call.id,
        "timeout_seconds": call.timeout_seconds,
    }


def _groups(groups: Sequence[LatentGroup]) -> tuple[Group, ...]:
    return tuple(
        Group(
            tuple(_end(end, f"groups[{place}].input[{i}]") for i, end in enumerate(group.input)), group.weight
        )
        for place, group in enumerate(groups)
    )


def _end(end: InputItem | list[Any], place: str) -> Item | Numbers:
    return read_item(end, place) if isinstance(end, InputItem) else end


def _numbers(output: Output) -> NDArray[np.float32]:
    if output.latent is None:
        raise ModelFault("The model made no latent.")
    return numbers(output.latent)


def _ratio(psnr: float | None) -> float | None:
    return None if psnr is None else finite(psnr)


def _compressed(compression: Compression | None) -> dict[str, Any]:
    if compression is None:
        raise ModelFault("Nothing was compressed.")
    data, jpeg = compression.data, compression.jpeg
    return {
        "data": b64encode_as_string(data),
        "bytes": len(data),
        "bits_per_pixel": finite(compression.bits_per_pixel),
        "psnr": _ratio(compression.psnr),
        "jpeg": jpeg and _file(jpeg),
        "webp": _file(compression.webp),
    }


def _file(file: File) -> dict[str, Any]:
    return {"bytes": file.bytes, "psnr": _ratio(file.psnr), "fits": file.fits}


def _latent(index: int, output: Output) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": index, "object": "latent", "latent": _numbers(output)}
    if output.spread is not None:
        fields["spread"] = numbers(output.spread)
    return fields


def _decoded(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [
        {"index": index, "object": "output", "output": write_output(output, None)}
        for index, output in enumerate(outputs)
    ]
