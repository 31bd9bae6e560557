"""POST /v1/chat/completions, streamed or at once."""

from functools import partial
from typing import Any

from deployments.errors import BadRequest
from deployments.messages import Complete, ModelClient, TextDelta
from service.answers import Answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.choices import Form, answer
from service.openai.conversation import ToolUse, chat_of, tool_use
from service.openai.generation import constraint_names, message
from service.openai.schemas.chat import ChatRequest
from service.openai.turns import Turn


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
        turns = _turns(call, request, use)
        form = Form(
            prefix="chatcmpl",
            kind="chat.completion",
            event="chat.completion.chunk",
            names=_names(body, use),
            whole=partial(_choice, turns),
            parts=partial(_parts, turns),
        )
        return await answer(self._models, call, card, body, request, form)


def _choice(turns: list[Turn], delta: TextDelta) -> dict[str, Any]:
    return {"index": delta.row, **turns[delta.row].whole(delta)}


def _parts(turns: list[Turn], delta: TextDelta) -> list[dict[str, Any]]:
    return [{"index": delta.row, **chunk} for chunk in turns[delta.row].chunks(delta)]


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
