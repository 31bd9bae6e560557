"""POST /v1/completions, streamed or at once."""

from functools import partial
from typing import Any

from deployments.messages import ModelClient, TextDelta
from service.answers import Answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.choices import Form, answer
from service.openai.generation import constraint_names, message, one_place, prompts_of
from service.openai.logprobs import completion_logprobs
from service.openai.schemas.text import CompletionRequest


class Text:
    """Continues text."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def completions(self, call: Call, body: CompletionRequest) -> Answer:
        """Continue each prompt, `n` times."""
        card = await self._catalogue.able(call, body.model, "complete")
        call.version = card.version
        request = message(
            call, body, prompts_of(body.prompt), body.max_tokens, logprobs=body.logprobs, echo=body.echo
        )
        form = Form(
            prefix="cmpl",
            kind="text_completion",
            event="text_completion",
            names={**constraint_names(body), **one_place("prompt", body.prompt)},
            whole=partial(_choice, body.logprobs),
            parts=partial(_parts, body.logprobs),
        )
        return await answer(self._models, call, card, body, request, form)


def _parts(alternatives: int | None, delta: TextDelta) -> list[dict[str, Any]]:
    """Nothing where there is nothing for the client: half a character is kept back until the rest has come."""
    return [_choice(alternatives, delta)] if delta.text or delta.logprobs or delta.finish else []


def _choice(alternatives: int | None, delta: TextDelta) -> dict[str, Any]:
    return {
        "index": delta.row,
        "text": delta.text,
        "logprobs": None if alternatives is None else completion_logprobs(delta.logprobs, alternatives),
        "finish_reason": delta.finish,
    }
