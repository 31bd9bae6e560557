"""Which models there are and what each can do, from their cards. Knows no route."""

from typing import Final

from deployments.errors import BadRequest, ModelNotFound
from deployments.messages import Card, ModelClient
from model_store.manifest import Capability
from service.call import UNKNOWN, Call

TEXT: Final = frozenset({"complete", "chat", "embed", "classify"})


class Catalogue:
    """The cards of a client, by name."""

    def __init__(self, models: ModelClient) -> None:
        self._models = models
        self._cards: tuple[Card, ...] = ()
        self._by_name: dict[str, Card] = {}

    async def cards(self) -> tuple[Card, ...]:
        """All cards, in the client's order."""
        return await self._models.cards()

    async def find(self, call: Call, name: str) -> Card:
        """The card of this model; from here on the call is counted under its name. Raises ModelNotFound."""
        cards = await self._models.cards()
        if cards is not self._cards:
            self._cards, self._by_name = cards, {card.name: card for card in cards}
        card = self._by_name.get(name)
        call.model = UNKNOWN if card is None else card.name
        if card is None:
            raise self._missing(name)
        return card

    def _missing(self, name: str) -> ModelNotFound:
        model, named, adapter = name.partition(":")
        if not named or model not in self._by_name:
            return ModelNotFound(f"There is no model '{name}' here.", param="model")
        adapters = [card.name.partition(":")[2] for card in self._cards if card.parent == model]
        has = ", ".join(adapters) or "none"
        return ModelNotFound(f"The model '{model}' has no adapter '{adapter}'; it has {has}.", param="model")

    async def able(self, call: Call, name: str, capability: Capability) -> Card:
        """The card, if the model can do this. Raises ModelNotFound, BadRequest."""
        card = await self.find(call, name)
        if capability not in card.capabilities:
            can = ", ".join(card.capabilities)
            message = f"The model '{name}' ({card.task}) cannot {capability.replace('_', ' ')}; it can {can}."
            raise BadRequest(message, code="task_not_supported", param="model")
        return card

    async def tokenizer(self, call: Call, name: str) -> Card:
        """The card, if the model reads text. Raises ModelNotFound, BadRequest."""
        card = await self.find(call, name)
        if not TEXT.intersection(card.capabilities):
            message = f"The model '{name}' ({card.task}) has no tokenizer."
            raise BadRequest(message, code="task_not_supported", param="model")
        return card
