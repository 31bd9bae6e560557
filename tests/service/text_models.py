"""Arithmetic in place of language models: text counts upwards, a vector says how long its text is."""

import struct
from collections.abc import Iterator
from typing import Literal

from deployments.errors import BadRequest
from deployments.messages import (
    Array,
    Chat,
    Classify,
    Complete,
    Detokenize,
    Embed,
    ImageItem,
    Item,
    Output,
    Prompt,
    RowItem,
    SeriesItem,
    TensorItem,
    TextDelta,
    Tokenize,
    TokenLogprob,
    Usage,
)

CONTEXT = 64
LABELS = ("short", "long")


def plain(prompt: Prompt) -> str | tuple[int, ...]:
    """What the model reads; a conversation is written out in the simplest of templates."""
    if isinstance(prompt, Chat):
        return "".join(f"{message['role'][0]}:{_said(message['content'])} " for message in prompt.messages)
    return prompt


def _said(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def length(prompt: Prompt | Item) -> int:
    if isinstance(prompt, ImageItem | TensorItem | RowItem | SeriesItem):
        return 0  # no tokens
    read = plain(prompt)
    return len(read.encode()) if isinstance(read, str) else len(read)


def most(request: Complete, prompt: Prompt) -> int:
    return CONTEXT - length(prompt) if request.max_tokens is None else request.max_tokens


def usage_of(request: Complete, said: int | None) -> Usage:
    prompts = sum(map(length, request.prompts))
    tokens = sum(most(request, prompt) if said is None else said for prompt in request.prompts)
    return Usage(prompts, tokens * request.n, cached_tokens=1 if request.reuse_prefix else 0)


def deltas(request: Complete, says: tuple[str, ...] | None) -> Iterator[TextDelta]:
    """Token k of a row is the number seed + row + k, and a space; or what the test wants said."""
    for place, prompt in enumerate(request.prompts):
        if length(prompt) + most(request, prompt) > CONTEXT and says is None:
            raise BadRequest("Too long.", code="context_length_exceeded", param=f"prompt[{place}]")
    for row in range(len(request.prompts) * request.n):
        prompt = request.prompts[row // request.n]
        start = request.seed % 100 + row
        words = says or tuple(f"{start + k} " for k in range(most(request, prompt)))
        finish: Literal["length", "stop"] = "length" if says is None else "stop"
        yield from _row(request, row, words, finish)


def _row(
    request: Complete, row: int, words: tuple[str, ...], finish: Literal["length", "stop"]
) -> Iterator[TextDelta]:
    text = str(plain(request.prompts[row // request.n])) if request.echo else ""
    if not words:
        yield TextDelta(row, text, finish=finish)
    for k, word in enumerate(words):
        logprobs: tuple[TokenLogprob, ...] = ()
        if request.logprobs is not None:
            top = tuple((b"alternative%d" % i, -0.1 - i) for i in range(request.logprobs))
            chosen = -0.5 if k or not request.echo else None
            logprobs = (TokenLogprob(word.encode(), chosen, top, len(text)),)
        yield TextDelta(row, text + word, (k,), logprobs, finish if k == len(words) - 1 else None)
        text = ""


def text_outputs(request: Tokenize | Detokenize | Embed | Classify) -> list[Output]:
    """A token is a byte."""
    match request:
        case Tokenize():
            read = str(plain(request.prompt)).encode()
            ids = (256,) * request.special + tuple(read)
            texts = (b"<s>",) * request.special + tuple(bytes([byte]) for byte in read)
            return [Output(token_ids=ids, token_bytes=texts)]
        case Detokenize():
            if max(request.tokens, default=0) > 256:
                raise BadRequest("There is no such token.", param="tokens")
            return [
                Output(text=bytes(token for token in request.tokens if token < 256).decode(errors="replace"))
            ]
        case Embed():
            return [Output(array=_vector(length(text), request.dimensions or 3)) for text in request.inputs]
        case Classify():
            return [Output(classes=_classes(length(text))) for text in request.inputs]


def text_usage(request: Tokenize | Detokenize | Embed | Classify) -> Usage:
    if isinstance(request, Embed | Classify):
        return Usage(prompt_tokens=sum(map(length, request.inputs)), items=len(request.inputs))
    return Usage(items=1)


def _vector(first: int, width: int) -> Array:
    return Array((width,), struct.pack(f"<{width}f", first, *(0.5 for _ in range(width - 1))))


def _classes(size: int) -> tuple[tuple[str, float], ...]:
    long = size / CONTEXT
    classes = (("long", long), ("short", 1 - long))
    return tuple(sorted(classes, key=lambda pair: -pair[1]))
