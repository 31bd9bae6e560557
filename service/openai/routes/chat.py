"""POST /v1/chat/completions, streamed or at once."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from deployments.errors import BadRequest
from deployments.messages import Card, Complete, ModelClient, TextDelta, Usage
from service.answers import Answer, beside, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.conversation import ToolUse, chat_of, tool_use
from service.openai.generation import (
    constraint_names,
    head,
    in_place,
    message,
    stream,
    usage_fields,
    written_size,
)
from service.openai.schemas.chat import ChatRequest
from service.openai.turns import Turn
from service.sse import Events


class Chats:
    """Answers conversations."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def completions(self, call: Call, body: ChatRequest) -> Answer:
        """Answer a conversation, `n` times; what the model may call are the client's own tools."""
        card = await self._catalogue.able(call, body.model, "chat")
        call.version = card.version
        use = tool_use(body, card)
        request = _message(call, body, use)
        names, turns = _names(body, use), _turns(call, request, use)
        if body.stream:
            start = head(call, card, "chat.completion.chunk", "chatcmpl", request.seed)
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return Events(self._events(request, start, names, turns, with_usage=with_usage))
        return await self._whole(call, card, request, names, turns)

    async def _whole(
        self, call: Call, card: Card, request: Complete, names: Mapping[str, str], turns: list[Turn]
    ) -> Answer:
        try:
            deltas = await self._models.collect(request)
        except BadRequest as error:
            raise in_place(error, names) from None
        last = deltas[-1]
        call.version, call.timings = last.version or card.version, last.timings
        start = head(call, card, "chat.completion", "chatcmpl", request.seed)
        return await beside(written_size(deltas), _written, start, deltas, turns)

    async def _events(
        self,
        request: Complete,
        start: dict[str, Any],
        names: Mapping[str, str],
        turns: list[Turn],
        *,
        with_usage: bool,
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        if with_usage:  # OpenAI's form: null in every event but the last
            start = {**start, "usage": None}
        usage = Usage()
        async with aclosing(stream(self._models, request, names)) as groups:
            async for deltas in groups:
                usage = next((delta.usage for delta in deltas if delta.usage), usage)
                events = [
                    {**start, "choices": [{"index": delta.row, **chunk}]}
                    for delta in deltas
                    for chunk in turns[delta.row].chunks(delta)
                ]
                if events:
                    yield events
        if with_usage:
            yield [{**start, "choices": [], "usage": usage_fields(usage)}]


def _written(start: dict[str, Any], deltas: Sequence[TextDelta], turns: Sequence[Turn]) -> Answer:
    choices = [{"index": delta.row, **turns[delta.row].whole(delta)} for delta in deltas]
    return json_answer({**start, "choices": choices, "usage": usage_fields(deltas[-1].usage or Usage())})


def _message(call: Call, body: ChatRequest, use: ToolUse) -> Complete:
    chat = chat_of(body.messages, use.offered, _variables(body))
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    logprobs = body.top_logprobs or 0 if body.logprobs else None
    return message(call, body, (chat,), _max_tokens(body), logprobs=logprobs, grammar=use.grammar)


def _variables(body: ChatRequest) -> dict[str, Any]:
    if body.reasoning_effort is None:
        return body.chat_template_kwargs
    if "reasoning_effort" in body.chat_template_kwargs:
        raise BadRequest(
            "'reasoning_effort' is given twice: in 'chat_template_kwargs' as well.", param="reasoning_effort"
        )
    return {**body.chat_template_kwargs, "reasoning_effort": body.reasoning_effort}


def _max_tokens(body: ChatRequest) -> int | None:
    if body.max_completion_tokens is None:
        return body.max_tokens
    if body.max_tokens not in (None, body.max_completion_tokens):
        raise BadRequest("'max_tokens' and 'max_completion_tokens' differ.", param="max_completion_tokens")
    return body.max_completion_tokens


def _names(body: ChatRequest, use: ToolUse) -> dict[str, str]:
    """The client's names for what the model calls otherwise."""
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    variable = "chat_template_kwargs" if body.chat_template_kwargs else "reasoning_effort"
    return {
        "prompt[0]": "messages",
        "prompt": "messages",
        **constraint_names(body, "tools" if use.grammar else None),
        "max_tokens": limit,
        "chat_template_kwargs": variable,
    }


def _turns(call: Call, request: Complete, use: ToolUse) -> list[Turn]:
    return [
        Turn(f"{call.id}:{row}", use.parser(), request.logprobs, short_ids=use.form == "mistral")
        for row in range(request.n)
    ]
