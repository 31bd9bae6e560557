"""Evaluates models of text through the engine that serves them: likelihood of documents, answers beside right ones, speed."""

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from deployments.evaluation.at_once import gathered
from deployments.evaluation.detection import histogram
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.estimates import Sampling, estimate
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Found, Passage, Progress
from deployments.evaluation.speed import timings
from deployments.evaluation.text_data import Texts
from deployments.evaluation.wording import agreement, variety
from deployments.messages import Complete, TextDelta, Tokenize
from deployments.studio import Studio
from model_store.manifest import Manifest, Text
from model_store.ranking import Weights

_AT_ONCE: Final = 8
_BLOCK: Final = 1024  # bytes that are drawn again together: tokens of one passage are not independent
_PROMPT: Final = 32  # tokens of a document that are continued
_SHOWN: Final = 8
_TIMED: Final = 64  # tokens
_RUNS: Final = 8


@dataclass(frozen=True)
class Asked:
    """How texts are made: most tokens of an answer, how many documents are continued, by which seed."""

    max_tokens: int
    samples: int
    seed: int


async def evaluate_texts(
    studio: Studio, manifest: Manifest, texts: Texts, asked: Asked, key: str, progress: Progress
) -> Found:
    """Everything that can be said of a model that continues or answers text."""
    text = manifest.text
    if text is None:
        raise EvaluationError(f"{manifest.name} does not continue text")
    if text.source and texts.documents:
        raise EvaluationError(
            "this model answers a text with another: give a .jsonl file with prompts and targets"
        )
    found = Found()
    if texts.documents:
        tokens = [await _tokens(studio, manifest.name, document) for document in texts.documents]
        found.add(await _likelihood(studio, manifest.name, text, tokens, key, progress))
        found.add(await _continued(studio, manifest.name, text, tokens, asked, key, progress))
    else:
        found.add(await _answered(studio, manifest.name, texts, asked, key, progress))
    prompt = texts.pairs[0].prompt if texts.pairs else tokens[0][:_PROMPT]
    found.figures |= await _speed(studio, Complete(manifest.name, (prompt,)), text, progress)
    return found


async def _tokens(studio: Studio, model: str, document: str) -> tuple[int, ...]:
    """Token ids of a document of any length. It is cut, as what no context can hold is refused; so may a word be, at each cut."""
    ids: list[int] = []
    for start in range(0, len(document), _BLOCK):
        reply = await studio.call(Tokenize(model, document[start : start + _BLOCK], special=False))
        ids += reply.outputs[0].token_ids or ()
    return tuple(ids)


# -- likelihood -----------------------------------------------------------------------------------------------------------


async def _likelihood(
    studio: Studio, model: str, text: Text, tokens: Sequence[tuple[int, ...]], key: str, progress: Progress
) -> Found:
    """Nats of every token, each told at least half a context of what comes before it; of a document's first one where texts have a prefix."""
    most, lead = text.context - len(text.prefix), len(text.prefix)
    windows = [(place, *each) for place, ids in enumerate(tokens) for each in _windows(len(ids), most)]

    async def scored(place: int, start: int, end: int, first: int) -> tuple[int, list[tuple[int, float]]]:
        ids = (*text.prefix, *tokens[place][start:end])
        request = Complete(model, (ids,), max_tokens=0, echo=True, logprobs=0, temperature=0.0)
        [delta] = await studio.collect(request)
        told = delta.logprobs[lead + first - start :]
        return place, [(len(each.token), -each.logprob) for each in told if each.logprob is not None]

    results = await gathered((scored(*each) for each in windows), len(windows), _AT_ONCE, "Reading", progress)
    blocks: dict[tuple[int, int], list[float]] = {}  # of a document and a place: nats, tokens, bytes
    read = dict.fromkeys(range(len(tokens)), 0)
    for place, told in results:
        for size, nats in told:
            block = blocks.setdefault((place, read[place] // _BLOCK), [0.0, 0.0, 0.0])
            for index, amount in enumerate((nats, 1, size)):
                block[index] += amount
            read[place] += size
    if not blocks:
        raise EvaluationError("the documents are too short: there is no second token")
    return _told(np.array(list(blocks.values())), key)


def _windows(length: int, context: int) -> Iterable[tuple[int, int, int]]:
    """Start and end of what is read, and the first place of it that counts."""
    yield 0, min(length, context), 0
    step = max(context // 2, 1)
    for counted in range(context, length, step):
        end = min(counted + step, length)
        yield max(end - context, 0), end, counted


def _told(blocks: np.ndarray[Any, np.dtype[np.float64]], key: str) -> Found:
    sampling = Sampling.of(f"{key}:blocks", len(blocks))
    nats, count, size = blocks.T

    def ratio(above: Weights, below: Weights, scale: float = 1.0) -> Any:
        return lambda weights: float(weights @ above / (weights @ below) * scale)

    bits = 1 / math.log(2)
    figures = {
        "bits_per_byte": estimate(
            ratio(nats, size, bits), sampling, better=False, about="of held-out text, whatever the tokenizer"
        ),
        "nats_per_token": estimate(
            ratio(nats, count),
            sampling,
            better=False,
            about="cross-entropy; of models with the same tokenizer only",
        ),
        "perplexity": estimate(
            lambda weights: math.exp(min(float(weights @ nats / (weights @ count)), 700.0)),
            sampling,
            better=False,
            about="exp of the cross-entropy; of models with the same tokenizer only",
        ),
    }
    each = {"blocks of 1 kB": nats / np.maximum(size, 1) * bits}
    return Found(figures, [histogram("Bits per byte", "bits per byte", each, {})])


# -- what is written --------------------------------------------------------------------------------------------------------


async def _continued(
    studio: Studio,
    model: str,
    text: Text,
    tokens: Sequence[tuple[int, ...]],
    asked: Asked,
    key: str,
    progress: Progress,
) -> Found:
    """Continue the documents from evenly spread places, sampled at temperature 1."""
    context = text.context - len(text.prefix)
    most = min(asked.max_tokens, context - 1)
    length = max(min(_PROMPT, context - most), 1)
    starts = [(ids, place) for ids in tokens for place in range(0, max(len(ids) - length, 0) + 1, length)]
    spread = [starts[int(each)] for each in np.linspace(0, len(starts) - 1, min(asked.samples, len(starts)))]
    prompts = [ids[place : place + length] for ids, place in spread]

    async def written(place: int) -> TextDelta:
        ids = (*text.prefix, *prompts[place])
        request = Complete(model, (ids,), max_tokens=most, seed=asked.seed + place)
        return (await studio.collect(request))[0]

    deltas = await gathered(map(written, range(len(prompts))), len(prompts), _AT_ONCE, "Writing", progress)
    answers = [delta.text for delta in deltas]
    passages = [
        Passage(await _said(studio, model, prompt), answer)
        for prompt, answer in zip(prompts[:_SHOWN], answers[:_SHOWN], strict=True)
    ]
    return Found(variety(answers, f"{key}:written:{length}:{most}"), passages=passages)


async def _said(studio: Studio, model: str, tokens: tuple[int, ...]) -> str:
    echoed = await studio.collect(Complete(model, (tokens,), max_tokens=0, echo=True))
    return echoed[0].text


async def _answered(
    studio: Studio, model: str, texts: Texts, asked: Asked, key: str, progress: Progress
) -> Found:
    """Answer every prompt greedily."""

    async def answered(prompt: Any) -> str:
        request = Complete(model, (prompt,), max_tokens=asked.max_tokens, temperature=0.0)
        return (await studio.collect(request))[0].text

    pairs = texts.pairs
    answers = await gathered(
        (answered(each.prompt) for each in pairs), len(pairs), _AT_ONCE, "Answering", progress
    )
    progress("Judging answers", 0, 0)
    figures = agreement(answers, [each.wanted for each in pairs], f"{key}:answers")
    figures |= variety(answers, f"{key}:answers")
    passages = [
        Passage(pair.asked, answer, pair.wanted[0])
        for pair, answer in zip(pairs[:_SHOWN], answers[:_SHOWN], strict=True)
    ]
    return Found(figures, passages=passages)


# -- speed ------------------------------------------------------------------------------------------------------------------


async def _speed(studio: Studio, request: Complete, text: Text, progress: Progress) -> dict[str, Figure]:
    """Time to the first token, and tokens a second of one stream and of several."""
    most = min(_TIMED, text.context // 2)
    figures: dict[str, Figure] = {}

    async def stream(seed: int) -> tuple[float, float, int]:
        began, first, count = time.perf_counter(), 0.0, 0
        timed = Complete(
            request.model, request.prompts, max_tokens=most, ignore_eos=True, seed=seed, reuse_prefix=False
        )
        async for delta in studio.stream(timed):
            count += len(delta.token_ids)
            first = first or time.perf_counter() - began
        return first, time.perf_counter() - began, max(count, 1)

    where = "in the engine, without a server"
    for streams in (1, _AT_ONCE):
        progress(f"Timing {streams} at once", 0, 0)
        await stream(0)
        firsts, per_token = [], []
        for run in range(_RUNS):
            began = time.perf_counter()
            results = await asyncio.gather(*(stream(run * streams + each) for each in range(streams)))
            per_token.append((time.perf_counter() - began) / sum(count for _, _, count in results))
            firsts += [first for first, _, _ in results]
        if streams == 1:
            latency = timings(np.array(firsts), 1, "", where)["latency_p50"]
            figures["first_token_p50"] = latency.model_copy(
                update={"about": f"median time to the first token, {where}"}
            )
        rate = timings(np.array(per_token), 1, "tokens", where)["throughput_1"]
        noun = "stream" if streams == 1 else "streams"
        figures[f"throughput_{streams}"] = rate.model_copy(
            update={"about": f"{streams} {noun} at once, {where}"}
        )
    return figures
