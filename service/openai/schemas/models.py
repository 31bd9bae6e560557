"""What `/v1/models` tells."""

from typing import Any, Literal

from service.openai.schemas.fields import Wire


class ModelCard(Wire):
    """OpenAI's four fields, and what a client must know to use the model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str
    family: str
    capabilities: list[str]
    version: str
    description: str
    licence: str
    host: str
    root: str  # the package that it is, or an adapter in
    parent: str | None
    limits: dict[str, Any]
    quality: dict[str, Any]
    drift: dict[
        str, Any
    ]  # PSI and KS of the last items' scores and latents beside their calibration, and whether to worry


class ModelList(Wire):
    """All models."""

    object: Literal["list"]
    data: list[ModelCard]
