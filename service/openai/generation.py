"""What completions and chat share between a request's fields and its message."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from deployments.errors import BadRequest
from deployments.messages import Complete, Grammar, Prompt
from service.call import Call
from service.openai.schemas.sampling import CONSTRAINTS, ResponseFormat, Sampling
from service.openai.seeds import draw_seed
from service.principal import principal_of

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


def prompts_of(prompt: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    """A prompt of any form as a list of texts and lists of ids."""
    if isinstance(prompt, str):
        return (prompt,)
    rows = tuple(
        part if isinstance(part, str) else tuple(part) for part in prompt if not isinstance(part, int)
    )
    return rows or (tuple(token for token in prompt if isinstance(token, int)),)
