"""POST /v1/completions, streamed or at once."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from deployments.errors import BadRequest
from deployments.messages import Card, Complete, ModelClient, TextDelta, TokenLogprob, Usage
from service.answers import Answer, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.schemas.text import CompletionRequest
from service.openai.seeds import draw_seed
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
        request = _message(call, body)
        head = _head(call, card, request)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return Events(self._events(body, request, head, with_usage=with_usage))
        try:
            deltas = await self._models.collect(request)
        except BadRequest as error:
            raise _in_place(error, body) from None
        last = deltas[-1]
        call.version, call.timings = last.version or card.version, last.timings
        return json_answer(
            {**head, "choices": _choices(deltas, request), "usage": _usage(last.usage or Usage())}
        )

    async def _events(
        self, body: CompletionRequest, request: Complete, head: dict[str, Any], *, with_usage: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        if with_usage:  # OpenAI's form: null in every event but the last
            head = {**head, "usage": None}
        usage = Usage()
        async with aclosing(self._models.stream(request)) as deltas:
            try:
                async for delta in deltas:
                    usage = delta.usage or usage
                    yield {**head, "choices": _choices([delta], request)}
            except BadRequest as error:
                raise _in_place(error, body) from None
        if with_usage:
            yield {**head, "choices": [], "usage": _usage(usage)}


def _message(call: Call, body: CompletionRequest) -> Complete:
    if body.stream_options is not None and not body.stream:
        raise BadRequest("'stream_options' needs 'stream': true.", param="stream_options")
    if body.best_of not in (None, body.n):
        raise BadRequest("Only 'best_of' = 'n' is supported.", code="unknown_parameter", param="best_of")
    return Complete(
        model=body.model,
        prompts=_prompts(body.prompt),
        request_id=call.id,
        max_tokens=body.max_tokens,
        n=body.n,
        temperature=body.temperature,
        top_k=max(0, body.top_k),
        top_p=body.top_p,
        seed=draw_seed() if body.seed is None else body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop),
        logprobs=body.logprobs,
        echo=body.echo,
        timeout_seconds=call.timeout_seconds,
    )


def _in_place(error: BadRequest, body: CompletionRequest) -> BadRequest:
    """Models speak of `prompt[0]`; who sent one prompt, and no list of them, knows it as `prompt`."""
    if error.param == "prompt[0]" and (isinstance(body.prompt, str) or isinstance(body.prompt[0], int)):
        error.param = "prompt"
    return error


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(prompt, str):
        return (prompt,)
    rows = tuple(
        part if isinstance(part, str) else tuple(part) for part in prompt if not isinstance(part, int)
    )
    return rows or (tuple(token for token in prompt if isinstance(token, int)),)


def _head(call: Call, card: Card, request: Complete) -> dict[str, Any]:
    return {
        "id": f"cmpl-{call.id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": card.name,
        # With the seed, what an answer depends on beside the request itself.
        "system_fingerprint": f"{card.name}:{card.version}",
        "seed": request.seed,
    }


def _choices(deltas: Sequence[TextDelta], request: Complete) -> list[dict[str, Any]]:
    return [
        {
            "index": delta.row,
            "text": delta.text,
            "logprobs": None if request.logprobs is None else _logprobs(delta.logprobs, request.logprobs),
            "finish_reason": delta.finish,
        }
        for delta in deltas
    ]


def _logprobs(tokens: Sequence[TokenLogprob], alternatives: int) -> dict[str, Any]:
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_top(token, alternatives) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _top(token: TokenLogprob, alternatives: int) -> dict[str, float] | None:
    """The alternatives and, as in OpenAI's API, the token itself where it is none of them."""
    if token.logprob is None:
        return None
    top: dict[str, float] = {}
    for text, logprob in token.top[:alternatives]:
        top.setdefault(text, logprob)  # parts of characters can look alike: the more probable one counts
    top.setdefault(token.text, token.logprob)
    return top


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
