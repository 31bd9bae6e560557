"""POST /v1/embeddings and /v1/classifications."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pybase64 import b64encode_as_string

from deployments.errors import BadRequest, ModelFault
from deployments.messages import Array, Classify, Embed, Item, ModelClient, Output, Reply
from service.answers import Answer, beside, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.generation import in_place, one_place, prompts_of
from service.openai.items import numbers, read_items
from service.openai.schemas.embeddings import ClassificationRequest, EmbeddingRequest
from service.openai.schemas.items import InputItem
from service.principal import principal_of


class Embeddings:
    """Reads whole texts."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def embeddings(self, call: Call, body: EmbeddingRequest) -> Answer:
        """Find one vector for each text or item."""
        await self._catalogue.able(call, body.model, "embed")
        request = Embed(
            model=body.model,
            inputs=_inputs(body.input),
            request_id=call.id,
            dimensions=body.dimensions,
            principal=principal_of(call.fields),
            priority=body.priority,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._ask(call, request, body)
        size = sum(len(output.array.data) for output in reply.outputs if output.array)
        return await beside(size, _embedded, body, reply)

    async def classifications(self, call: Call, body: ClassificationRequest) -> Answer:
        """Find the probability of each of the model's classes for each text."""
        await self._catalogue.able(call, body.model, "classify")
        request = Classify(
            model=body.model,
            inputs=prompts_of(body.input),
            request_id=call.id,
            principal=principal_of(call.fields),
            priority=body.priority,
            timeout_seconds=call.timeout_seconds,
        )
        reply = await self._ask(call, request, body)
        data = [{"object": "classification", "index": i, **_classes(o)} for i, o in enumerate(reply.outputs)]
        return _list(body.model, reply, data)

    async def _ask(
        self, call: Call, request: Embed | Classify, body: EmbeddingRequest | ClassificationRequest
    ) -> Reply:
        try:
            reply = await self._models.call(request)
        except BadRequest as error:
            raise in_place(error, one_place("input", body.input)) from None
        call.version, call.timings = reply.version, reply.timings
        return reply


def _inputs(sent: Any) -> tuple[str | tuple[int, ...] | Item, ...]:
    items = [each for each in sent if isinstance(each, InputItem)] if isinstance(sent, list) else []
    return read_items(items) if items else prompts_of(sent)


def _embedded(body: EmbeddingRequest, reply: Reply) -> Answer:
    as_text = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(output.array, as_text=as_text)}
        for index, output in enumerate(reply.outputs)
    ]
    return _list(body.model, reply, data)


def _vector(vector: Array | None, *, as_text: bool) -> NDArray[np.float32] | str:
    if vector is None:
        raise ModelFault("The model made no vector.")
    values = numbers(vector)
    return b64encode_as_string(vector.data) if as_text else values


def _classes(output: Output) -> dict[str, Any]:
    if not output.classes:
        raise ModelFault("The model found no class.")
    return {
        "label": output.classes[0][0],
        "classes": [{"label": label, "probability": probability} for label, probability in output.classes],
    }


def _list(model: str, reply: Reply, data: list[dict[str, Any]]) -> Answer:
    tokens = reply.usage.prompt_tokens
    fields = {
        "object": "list",
        "model": model,
        "version": reply.version,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json_answer(fields)
