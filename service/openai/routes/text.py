"""POST /v1/completions, streamed or at once."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from deployments.errors import BadRequest
from deployments.messages import Complete, ModelClient, TextDelta, Usage
from service.answers import Answer, beside, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.generation import (
    constraint_names,
    head,
    in_place,
    message,
    one_place,
    stream,
    usage_fields,
    written_size,
)
from service.openai.logprobs import completion_logprobs
from service.openai.schemas.text import CompletionRequest
from service.sse import Events


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
        start = head(call, card, "text_completion", "cmpl", request.seed)
        names = _names(body)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return Events(self._events(request, start, names, with_usage=with_usage))
        try:
            deltas = await self._models.collect(request)
        except BadRequest as error:
            raise in_place(error, names) from None
        last = deltas[-1]
        call.version, call.timings = last.version or card.version, last.timings
        return await beside(written_size(deltas), _whole, start, deltas, request)

    async def _events(
        self, request: Complete, start: dict[str, Any], names: Mapping[str, str], *, with_usage: bool
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        if with_usage:  # OpenAI's form: null in every event but the last
            start = {**start, "usage": None}
        usage = Usage()
        async with aclosing(stream(self._models, request, names)) as groups:
            async for deltas in groups:
                usage = next((delta.usage for delta in deltas if delta.usage), usage)
                events = [{**start, "choices": [_choice(delta, request)]} for delta in deltas if _says(delta)]
                if events:
                    yield events
        if with_usage:
            yield [{**start, "choices": [], "usage": usage_fields(usage)}]


def prompts_of(prompt: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    """A prompt of any form as a list of texts and lists of ids."""
    if isinstance(prompt, str):
        return (prompt,)
    rows = tuple(
        part if isinstance(part, str) else tuple(part) for part in prompt if not isinstance(part, int)
    )
    return rows or (tuple(token for token in prompt if isinstance(token, int)),)


def _whole(start: dict[str, Any], deltas: Sequence[TextDelta], request: Complete) -> Answer:
    choices = [_choice(delta, request) for delta in deltas]
    return json_answer({**start, "choices": choices, "usage": usage_fields(deltas[-1].usage or Usage())})


def _names(body: CompletionRequest) -> dict[str, str]:
    """The client's names for what the model calls otherwise."""
    return {**constraint_names(body), **one_place("prompt", body.prompt)}


def _says(delta: TextDelta) -> bool:
    """Whether there is anything in it for the client: half a character is kept back until the rest has come."""
    return bool(delta.text or delta.logprobs or delta.finish)


def _choice(delta: TextDelta, request: Complete) -> dict[str, Any]:
    return {
        "index": delta.row,
        "text": delta.text,
        "logprobs": (
            None if request.logprobs is None else completion_logprobs(delta.logprobs, request.logprobs)
        ),
        "finish_reason": delta.finish,
    }
