"""POST and GET /v1/anomalies/calibrations; GET, DELETE /v1/anomalies/calibrations/{id}, POST .../{id}/default."""

from dataclasses import asdict
from typing import Any, Literal

from deployments.errors import BadRequest
from deployments.messages import Calibrate, Calibration, ModelClient, Reply
from deployments.messages import Calibrations as Kept
from service.answers import Answer, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.items import read_items
from service.openai.schemas.calibrations import CalibrationRequest


class Calibrations:
    """Makes calibrations and looks after them. An id begins with its model's name."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def create(self, call: Call, body: CalibrationRequest) -> Answer:
        """Make a calibration: the threshold, and what normal items score."""
        await self._catalogue.able(call, body.model, "score")
        request = Calibrate(
            model=body.model,
            items=read_items(body.input),
            request_id=call.id,
            labels=None if body.labels is None else tuple(body.labels),
            score=body.score,
            method=body.method,
            level=_level(body),
            default=body.default,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._models.call(request)
        call.version, call.timings = reply.version, reply.timings
        return json_answer({**_shown(reply.calibrations[0]), "usage": {"items": reply.usage.items}})

    async def all(self, call: Call) -> Answer:
        """List a model's calibrations."""
        model = call.query_params.get("model")
        if not model:
            raise BadRequest(
                "Say which model's: '?model='.", code="missing_required_parameter", param="model"
            )
        reply = await self._ask(call, model, "list")
        return json_answer({"object": "list", "data": [_shown(each) for each in reply.calibrations]})

    async def one(self, call: Call) -> Answer:
        """Show a calibration."""
        return json_answer(_shown((await self._about(call, "find")).calibrations[0]))

    async def make_default(self, call: Call) -> Answer:
        """Make a calibration the default of its score; the package's own (`model:version`), of all scores."""
        return json_answer(_shown((await self._about(call, "choose")).calibrations[0]))

    async def delete(self, call: Call) -> Answer:
        """Delete a calibration that is no default."""
        reply = await self._about(call, "delete")
        return json_answer({"id": reply.calibrations[0].id, "object": "calibration", "deleted": True})

    async def _about(self, call: Call, act: Literal["find", "choose", "delete"]) -> Reply:
        identity = call.path_params["id"]
        return await self._ask(call, identity.partition(":")[0], act, identity)

    async def _ask(
        self, call: Call, model: str, act: Literal["list", "find", "choose", "delete"], identity: str = ""
    ) -> Reply:
        await self._catalogue.able(call, model, "score")
        request = Kept(model, act, identity, request_id=call.id, timeout_seconds=call.timeout_seconds)
        reply = await self._models.call(request)
        call.version = reply.version
        return reply


def _level(body: CalibrationRequest) -> float | None:
    """The method's own. Raises BadRequest for another one's."""
    levels = {"quantile": body.quantile, "false_positive_rate": body.false_positive_rate}
    for name, value in levels.items():
        if value is not None and name != body.method:
            raise BadRequest(f"'{name}' is of the method '{name}'.", param=name)
    return levels.get(body.method)


def _shown(calibration: Calibration) -> dict[str, Any]:
    return {"object": "calibration", **asdict(calibration)}
