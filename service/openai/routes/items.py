"""POST /v1/reconstructions, /v1/anomalies and /v1/latents/encode, decode, interpolate."""

from collections.abc import Sequence
from typing import Any

from deployments.errors import BadRequest, ModelFault
from deployments.messages import (
    Decode,
    Encode,
    Interpolate,
    Item,
    ModelClient,
    Numbers,
    Output,
    Reconstruct,
    Reply,
    Score,
)
from service.answers import Answer, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.items import (
    finite,
    numbers,
    read_item,
    read_items,
    write_alarm,
    write_output,
    write_png,
)
from service.openai.schemas.items import (
    AnomalyRequest,
    DecodeRequest,
    EncodeRequest,
    InputItem,
    InterpolateRequest,
    ReconstructionRequest,
)


class Items:
    """Reconstructs, scores, encodes and decodes."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def anomalies(self, call: Call, body: AnomalyRequest) -> Answer:
        """Score items: how far each is from what the model knows as normal."""
        await self._catalogue.able(call, body.model, "score")
        if body.map_format != "image" and "map" not in body.return_:
            raise BadRequest("'map_format' needs 'map' among what to 'return'.", param="map_format")
        request = Score(
            model=body.model,
            items=read_items(body.input),
            request_id=call.id,
            score=body.score,
            calibration=body.calibration,
            threshold=body.threshold,
            false_discovery_rate=body.false_discovery_rate,
            map="map" in body.return_,
            map_numbers=body.map_format == "tensor",
            mask="mask" in body.return_,
            contributions="contributions" in body.return_,
            steps="steps" in body.return_,
            seed=body.seed,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._models.call(request)
        pairs = zip(request.items, reply.outputs, strict=True)
        data = [_anomaly(index, item, output) for index, (item, output) in enumerate(pairs)]
        by = {"score": reply.score, "calibration": reply.calibration, "method": reply.method}
        return _list(call, body.model, reply, data, **by)

    async def reconstructions(self, call: Call, body: ReconstructionRequest) -> Answer:
        """Reconstruct items: what the model makes of each."""
        await self._catalogue.able(call, body.model, "reconstruct")
        request = Reconstruct(
            model=body.model,
            items=read_items(body.input),
            request_id=call.id,
            error_map="error_map" in body.return_,
            latent="latent" in body.return_,
            samples=body.samples,
            seed=body.seed,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._models.call(request)
        pairs = zip(request.items, reply.outputs, strict=True)
        data = [_reconstruction(index, item, output) for index, (item, output) in enumerate(pairs)]
        return _list(call, body.model, reply, data)

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
        return _list(call, body.model, reply, data)

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
        return _list(call, body.model, reply, _decoded(reply.outputs))

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
        return _list(call, body.model, reply, _decoded(reply.outputs))


def _end(end: InputItem | list[Any], place: str) -> Item | Numbers:
    return read_item(end, place) if isinstance(end, InputItem) else end


def _anomaly(index: int, asked: Item, output: Output) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "index": index,
        "object": "anomaly",
        "score": finite(output.score),
        "normalized": finite(output.normalized),
        "p_value": finite(output.p_value),
        "threshold": finite(output.threshold),
        "is_anomaly": output.is_anomaly,
    }
    if output.adjusted_p_value is not None:
        fields["adjusted_p_value"] = finite(output.adjusted_p_value)
    if isinstance(output.map, bytes):
        fields["map"] = write_png(output.map)
    elif output.map is not None:
        fields["map"] = write_output(Output(array=output.map), asked)
    if output.mask is not None:
        fields["mask"] = write_png(output.mask)
    if output.contributions is not None:
        fields["contributions"] = output.contributions
    if output.step_scores is not None:
        fields["steps"] = {"start": output.start, "scores": list(map(finite, output.step_scores))}
    if output.alarms is not None:
        fields["alarms"] = list(map(write_alarm, output.alarms))
    if output.session is not None:
        fields["session"] = output.session
    return fields


def _reconstruction(index: int, item: Item, output: Output) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "index": index,
        "object": "reconstruction",
        "output": write_output(output, item),
        "error": None if output.error is None else finite(output.error),
    }
    if output.imputed is not None:
        fields["imputed"] = {
            name: {"value": each.value, "spread": each.spread} for name, each in output.imputed.items()
        }
    if output.error_map is not None:
        fields["error_map"] = write_png(output.error_map)
    if output.latent is not None:
        fields["latent"] = numbers(output.latent)
    return fields


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


def _list(call: Call, model: str, reply: Reply, data: list[dict[str, Any]], **more: Any) -> Answer:
    call.version, call.timings = reply.version, reply.timings
    fields = {"object": "list", "model": model, "version": reply.version, **more, "data": data}
    return json_answer({**fields, "usage": {"items": reply.usage.items}})
