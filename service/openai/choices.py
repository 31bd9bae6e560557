"""From a model's text deltas to an answer, at once or as a stream: what completions and chat share."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from deployments.errors import BadRequest
from deployments.messages import Card, Complete, ModelClient, TextDelta, Usage
from service.answers import Answer, beside, json_answer
from service.call import Call
from service.openai.generation import in_place
from service.openai.schemas.sampling import Sampling
from service.sse import Events
from service.streams import Drain

Choice = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """How one of the two APIs writes an answer."""

    prefix: str  # of its id
    kind: str  # its `object`
    event: str  # that of a stream's events
    names: Mapping[str, str]  # the client's own for what models call otherwise
    whole: Callable[[TextDelta], Choice]  # of a row's only delta
    parts: Callable[[TextDelta], Iterable[Choice]]  # one for each event that a delta makes


async def answer(
    models: ModelClient, call: Call, card: Card, body: Sampling, request: Complete, form: Form
) -> Answer:
    """Continue the request's texts; a stream where the body asks for one."""
    start = {
        "id": f"{form.prefix}-{call.id}",
        "object": form.event if body.stream else form.kind,
        "created": int(time.time()),
        "model": card.name,
        # With the seed, what an answer depends on beside the request itself.
        "system_fingerprint": f"{card.name}:{card.version}",
        "seed": request.seed,
    }
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return Events(_events(models, request, start, form, with_usage=with_usage))
    try:
        deltas = await models.collect(request)
    except BadRequest as error:
        raise in_place(error, form.names) from None
    last = deltas[-1]
    call.version, call.timings = last.version or card.version, last.timings
    return await beside(_size(deltas), _written, start, deltas, form)


def _written(start: dict[str, Any], deltas: Sequence[TextDelta], form: Form) -> Answer:
    choices = [form.whole(delta) for delta in deltas]
    return json_answer({**start, "choices": choices, "usage": _usage(deltas[-1].usage or Usage())})


def _size(deltas: Sequence[TextDelta]) -> int:
    """About how many bytes of log-probabilities there are: these are what can make an answer large."""
    return sum(64 * (1 + len(token.top)) for delta in deltas for token in delta.logprobs)


async def _events(
    models: ModelClient, request: Complete, start: dict[str, Any], form: Form, *, with_usage: bool
) -> AsyncGenerator[list[dict[str, Any]], None]:
    if with_usage:  # OpenAI's form: null in every event but the last
        start = {**start, "usage": None}
    usage = Usage()
    async with aclosing(Drain(models.stream(request)).groups()) as groups:
        try:
            async for group in groups:
                usage = next((delta.usage for delta in group if delta.usage), usage)
                events = [
                    {**start, "choices": [choice]} for delta in _joined(group) for choice in form.parts(delta)
                ]
                if events:
                    yield events
        except BadRequest as error:
            raise in_place(error, form.names) from None
    if with_usage:
        yield [{**start, "choices": [], "usage": _usage(usage)}]


def _joined(deltas: list[TextDelta]) -> list[TextDelta]:
    """One delta for each row: those that came while the last ones were sent."""
    rows: dict[int, list[TextDelta]] = {}
    for delta in deltas:
        rows.setdefault(delta.row, []).append(delta)
    return [_join(parts) for parts in rows.values()]


def _join(parts: Sequence[TextDelta]) -> TextDelta:
    last = parts[-1]
    if len(parts) == 1:
        return last
    return replace(
        last,
        text="".join(part.text for part in parts),
        token_ids=tuple(token for part in parts for token in part.token_ids),
        logprobs=tuple(token for part in parts for token in part.logprobs),
    )


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
