"""GET /v1/models and /v1/models/{id}."""

from typing import Any

from deployments.messages import Card
from service.answers import Document, json_answer
from service.call import Call
from service.catalogue import Catalogue


class Models:
    """What is served here."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def all(self, call: Call) -> Document:  # noqa: ARG002 - every route takes its call
        """List the models."""
        cards = await self._catalogue.cards()
        return json_answer({"object": "list", "data": [card_fields(card) for card in cards]})

    async def one(self, call: Call) -> Document:
        """Show one model's card: what it can do, its limits and its measured quality."""
        card = await self._catalogue.find(call, call.path_params["id"])
        call.version = card.version
        return json_answer(card_fields(card))


def card_fields(card: Card) -> dict[str, Any]:
    """A card as /v1 shows it."""
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "atelier",
        "task": card.task,
        "family": card.family,
        "capabilities": card.capabilities,
        "version": card.version,
        "description": card.description,
        "licence": card.licence,
        "host": card.host,
        "root": card.parent or card.name,
        "parent": card.parent,
        "limits": card.limits,
        "quality": card.quality,
        "drift": card.drift,
    }
