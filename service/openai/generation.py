"""What completions and chat share between a request's fields and its message, and between deltas and an answer."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import orjson

from deployments.errors import BadRequest
from deployments.messages import Card, Complete, Grammar, ModelClient, Prompt, TextDelta, Usage
from service.call import Call
from service.openai.schemas.sampling import CONSTRAINTS, ResponseFormat, Sampling
from service.openai.seeds import draw_seed
from service.principal import principal_of
from service.streams import Drain

_OFF: Final = ResponseFormat(type="text")


def message(
    call: Call,
    body: Sampling,
    prompts: tuple[Prompt, ...],
    max_tokens: int | None,
    *,
    logprobs: int | None,
    echo: bool = False,
    grammar: Grammar | None = None,
) -> Complete:
    """The engine's message. Raises BadRequest for fields that contradict each other."""
    _check(body, max_tokens)
    return Complete(
        model=body.model,
        prompts=prompts,
        request_id=call.id,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        n=body.n,
        best_of=body.best_of,
        temperature=body.temperature,
        top_k=max(0, body.top_k),
        top_p=body.top_p,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=tuple((int(token), bias) for token, bias in body.logit_bias.items()),
        seed=draw_seed() if body.seed is None else body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop),
        stop_token_ids=tuple(body.stop_token_ids),
        ignore_eos=body.ignore_eos,
        logprobs=logprobs,
        echo=echo,
        grammar=grammar or grammar_of(body),
        principal=principal_of(call.fields),
        priority=body.priority,
        reuse_prefix=body.cache_prompt,
        timeout_seconds=call.timeout_seconds,
    )


def _check(body: Sampling, max_tokens: int | None) -> None:
    if body.stream_options is not None and not body.stream:
        raise BadRequest("'stream_options' needs 'stream': true.", param="stream_options")
    if body.best_of is not None:
        if body.best_of < body.n:
            raise BadRequest("'best_of' must be at least 'n'.", param="best_of")
        if body.stream and body.best_of > body.n:
            raise BadRequest(
                "What is best is known at the end: no 'stream' with 'best_of' > 'n'.", param="best_of"
            )
    if max_tokens is not None and body.min_tokens > max_tokens:
        raise BadRequest("'min_tokens' is larger than the most tokens allowed.", param="min_tokens")


def constraints(body: Sampling) -> list[str]:
    """Names of the given fields that say what the text must be."""
    given = [name for name in CONSTRAINTS if getattr(body, name) is not None]
    return [name for name in given if getattr(body, name) != _OFF]


def grammar_of(body: Sampling) -> Grammar | None:
    """What the text must be. Raises BadRequest where two fields say so."""
    given = constraints(body)
    if len(given) > 1:
        raise BadRequest(f"'{given[1]}' cannot be combined with '{given[0]}'.", param=given[1])
    if body.regex is not None:
        return Grammar("regex", body.regex)
    if body.choice is not None:
        return Grammar("choice", orjson.dumps(body.choice).decode())
    if body.grammar is not None:
        return Grammar("lark", body.grammar)
    if not given or body.response_format is None:
        return None
    schema = body.response_format.json_schema
    if schema is None:
        return Grammar("json_object")
    return Grammar("json_schema", orjson.dumps(schema.schema_).decode())


def constraint_names(body: Sampling, forced_by: str | None = None) -> dict[str, str]:
    """The client's own name for what says what the text must be, whatever the model calls it."""
    own = forced_by or next(iter(constraints(body)), None)
    return dict.fromkeys(("grammar", *CONSTRAINTS), own) if own else {}


def in_place(error: BadRequest, names: Mapping[str, str]) -> BadRequest:
    """The error with the client's own name for what the model calls otherwise."""
    if error.param is not None:
        error.param = names.get(error.param, error.param)
    return error


def one_place(field: str, value: Any) -> dict[str, str]:
    """Models speak of `prompt[0]`; who sent one prompt, and no list of them, knows it as `prompt`."""
    one = isinstance(value, str) or isinstance(value[0], int)
    return {f"{field}[0]": field} if one else {}


def head(call: Call, card: Card, kind: str, prefix: str, seed: int) -> dict[str, Any]:
    """What every answer and event begins with."""
    return {
        "id": f"{prefix}-{call.id}",
        "object": kind,
        "created": int(time.time()),
        "model": card.name,
        # With the seed, what an answer depends on beside the request itself.
        "system_fingerprint": f"{card.name}:{card.version}",
        "seed": seed,
    }


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Tokens of a request."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def written_size(deltas: Sequence[TextDelta]) -> int:
    """About how many bytes of log-probabilities there are: these are what can make an answer large."""
    return sum(64 * (1 + len(token.top)) for delta in deltas for token in delta.logprobs)


async def stream(
    models: ModelClient, request: Complete, names: Mapping[str, str]
) -> AsyncGenerator[list[TextDelta], None]:
    """A request's deltas as they come; of each row, those that came while the last ones were sent, joined."""
    async with aclosing(Drain(models.stream(request)).groups()) as groups:
        try:
            async for group in groups:
                yield joined(group)
        except BadRequest as error:
            raise in_place(error, names) from None


def joined(deltas: list[TextDelta]) -> list[TextDelta]:
    """One delta for each row."""
    if len(deltas) == 1:
        return deltas
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
