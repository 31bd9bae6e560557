"""The routes of /v1, and how they are documented."""

from typing import Any, Final

from deployments.messages import ModelClient
from service.catalogue import Catalogue
from service.openai.routes.calibrations import Calibrations
from service.openai.routes.chat import Chats
from service.openai.routes.embeddings import Embeddings
from service.openai.routes.images import Images
from service.openai.routes.items import Items
from service.openai.routes.latents import Latents
from service.openai.routes.models import Models
from service.openai.routes.text import Text
from service.openai.routes.tokens import Tokenizers
from service.openai.schemas.calibrations import CalibrationDeleted, CalibrationList, CalibrationOut
from service.openai.schemas.chat import ChatCompletion
from service.openai.schemas.embeddings import ClassificationList, EmbeddingList
from service.openai.schemas.errors import ErrorBody
from service.openai.schemas.images import ImageList
from service.openai.schemas.items import AnomalyList, DecodedList, LatentList, ReconstructionList
from service.openai.schemas.latents import CombinedList, TraversedList
from service.openai.schemas.models import ModelCard, ModelList
from service.openai.schemas.text import Completion
from service.openai.schemas.tokens import Detokenized, Tokens
from service.operation import Frame, Handler, Operation
from service.tensors import parse_tensors

ALWAYS: Final = {
    500: "A bug of ours.",
    503: "No replica can answer now; `Retry-After` says when to try again.",
    504: "The time limit passed.",
}
POSTED: Final = {
    400: "The request can never succeed as it stands; `param` names the field.",
    404: "There is no such model.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The waiting line is full; `Retry-After` says when to try again.",
}
EVENTS: Final = {"text/event-stream": {"schema": {"type": "string"}}}
ID: Final = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
MODEL: Final = {"name": "model", "in": "query", "required": True, "schema": {"type": "string"}}
TIMEOUT: Final = {
    "name": "x-request-timeout",
    "in": "header",
    "description": "Seconds the request may take; can only shorten the service's limit.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def errors(statuses: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """How error answers are documented."""
    said: dict[int | str, str] = {**dict(sorted(statuses.items())), "default": "Every other failure."}
    return {status: {"model": ErrorBody, "description": text} for status, text in said.items()}


def operations(models: ModelClient, frame: Frame) -> list[Operation]:
    """All routes of the dialect, the most frequent first: routers look from the top."""
    catalogue = Catalogue(models)
    items, text, chats = Items(models, catalogue), Text(models, catalogue), Chats(models, catalogue)
    reading, tokens = Embeddings(models, catalogue), Tokenizers(models, catalogue)
    images, cards = Images(models, catalogue), Models(catalogue)
    calibrations = Calibrations(models, catalogue)
    latents = Latents(models, catalogue)

    def post(path: str, handler: Handler, answer: type, tag: str, media: Any = None, **how: Any) -> Operation:
        responses = errors(ALWAYS | POSTED) | ({200: {"content": media}} if media else {})
        return Operation(
            frame, path, handler, "POST", response_model=answer, responses=responses, tags=[tag],
            response_description="Done.", openapi_extra={"parameters": [TIMEOUT]}, **how,
        )  # fmt: skip

    def tensors(path: str, handler: Handler, answer: type, tag: str) -> Operation:
        return post(path, handler, answer, tag, read=parse_tensors)

    def get(
        path: str,
        handler: Handler,
        answer: type,
        statuses: dict[int, str],
        *parameters: Any,
        tag: str = "models",
        method: str = "GET",
    ) -> Operation:
        return Operation(
            frame, path, handler, method, response_model=answer, responses=errors(statuses), tags=[tag],
            response_description="Found.", openapi_extra={"parameters": list(parameters)},
        )  # fmt: skip

    kept = "/v1/anomalies/calibrations"
    missing = ALWAYS | {400: POSTED[400], 404: "There is no such model or calibration."}

    def about(path: str, handler: Handler, answer: type, parameter: Any, method: str = "GET") -> Operation:
        return get(kept + path, handler, answer, missing, parameter, tag="items", method=method)

    return [
        tensors("/v1/anomalies", items.anomalies, AnomalyList, "items"),
        post("/v1/completions", text.completions, Completion, "text", EVENTS),
        post("/v1/chat/completions", chats.completions, ChatCompletion, "text", EVENTS),
        tensors("/v1/embeddings", reading.embeddings, EmbeddingList, "text"),
        post("/v1/classifications", reading.classifications, ClassificationList, "text"),
        post("/v1/tokenize", tokens.tokenize, Tokens, "text"),
        post("/v1/detokenize", tokens.detokenize, Detokenized, "text"),
        tensors("/v1/reconstructions", items.reconstructions, ReconstructionList, "items"),
        tensors(kept, calibrations.create, CalibrationOut, "items"),
        about("", calibrations.all, CalibrationList, MODEL),
        about("/{id}", calibrations.one, CalibrationOut, ID),
        about("/{id}", calibrations.delete, CalibrationDeleted, ID, "DELETE"),
        about("/{id}/default", calibrations.make_default, CalibrationOut, ID, "POST"),
        post("/v1/images/generations", images.generations, ImageList, "images", EVENTS),
        post("/v1/images/edits", images.edits, ImageList, "images", EVENTS, forms=True),
        post("/v1/images/variations", images.variations, ImageList, "images", EVENTS, forms=True),
        tensors("/v1/latents/encode", latents.encode, LatentList, "latents"),
        tensors("/v1/latents/decode", latents.decode, DecodedList, "latents"),
        tensors("/v1/latents/interpolate", latents.interpolate, DecodedList, "latents"),
        tensors("/v1/latents/traverse", latents.traverse, TraversedList, "latents"),
        tensors("/v1/latents/combine", latents.combine, CombinedList, "latents"),
        get("/v1/models", cards.all, ModelList, ALWAYS),
        get("/v1/models/{id}", cards.one, ModelCard, ALWAYS | {404: POSTED[404]}, ID),
    ]
