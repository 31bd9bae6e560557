"""POST /v1/reconstructions and /v1/anomalies."""

from typing import Any

from deployments.errors import BadRequest
from deployments.messages import (
    Item,
    ModelClient,
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
    read_items,
    write_alarm,
    write_output,
    write_png,
)
from service.openai.schemas.items import (
    AnomalyRequest,
    ReconstructionRequest,
)


class Items:
    """Reconstructs and scores."""

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
        return listed(call, body.model, reply, data, **by)

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
        return listed(call, body.model, reply, data)


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


def listed(call: Call, model: str, reply: Reply, data: list[dict[str, Any]], **more: Any) -> Answer:
    """The answer of a list of outputs, `more` before them."""
    call.version, call.timings = reply.version, reply.timings
    fields = {"object": "list", "model": model, "version": reply.version, **more, "data": data}
    return json_answer({**fields, "usage": {"items": reply.usage.items}})
