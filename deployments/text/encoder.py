"""Texts that are read whole: rows of like length run together, right-padded to the longest of them.

What padding costs is weighed against what a run costs; the row that waits longest is always in the next run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from deployments.errors import BadRequest
from deployments.messages import Array as Sent
from deployments.messages import Classify, Embed, Output
from deployments.metrics import Metrics
from deployments.rows import Row
from deployments.text.vocabulary import Vocabulary
from model_store.manifest import Encoder, Manifest
from model_store.session import Array, Session

GRAPH: Final = "encode"
# Tokens, padding among them, of one run: what is longer than a run may take alone. A step of the engine is one run, so this
# bounds how long a new request waits for the device.
RUN_TOKENS: Final[Mapping[str, int]] = {"cpu": 2048, "cuda": 32_768}
# What a run costs beside its tokens, in tokens: a MiniLM of 6 layers takes 4 ms on two cores, and 0.28 ms for each token.
_RUN_COST: Final[Mapping[str, int]] = {"cpu": 16, "cuda": 2048}


@dataclass(frozen=True, slots=True)
class Reading:
    """One text's token ids, with what the model wants around them; `place` is its own among its request's."""

    tokens: tuple[int, ...]
    place: int = 0

    @property
    def cost(self) -> int:
        """Tokens it takes."""
        return len(self.tokens)


Read = tuple[int, Array]  # the text's place, the model's answer to it
ReadingRow = Row[Reading, Read]


def partition(lengths: Sequence[int], *, run_tokens: int, run_cost: int) -> list[int]:
    """Where to cut ascending lengths into runs, as the end of each, so that they cost least together.

    A run costs `run_cost` and its rows times its longest; it has at most `run_tokens` tokens, or one row.
    """
    least = [0.0] * (len(lengths) + 1)  # what the first n rows cost
    start = [0] * (len(lengths) + 1)  # where the last run of the first n rows begins
    for end, longest in enumerate(lengths, 1):
        first = max(0, end - max(1, run_tokens // longest))
        costs = [least[begin] + (end - begin) * longest for begin in range(first, end)]
        cheapest = min(costs)
        least[end] = cheapest + run_cost
        start[end] = first + costs.index(cheapest)
    ends = [len(lengths)]
    while start[ends[-1]]:
        ends.append(start[ends[-1]])
    return ends[::-1]


class EncoderProgram:
    """Runs one batch a step. Belongs to the engine's thread."""

    def __init__(
        self,
        manifest: Manifest,
        session: Session,
        metrics: Metrics,
        *,
        max_batch: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.capacity = max_batch
        self._session = session
        self._names = {tensor.role: tensor.name for tensor in manifest.graphs[GRAPH].inputs}
        self._output = manifest.graphs[GRAPH].outputs[0].name
        self._run_tokens = RUN_TOKENS[session.device.kind]
        self._run_cost = _RUN_COST[session.device.kind]
        self._clock = clock
        self._step_seconds = metrics.step_seconds.labels(manifest.name, GRAPH)
        self._batch_rows = metrics.batch_rows.labels(manifest.name, GRAPH)
        self._prompt_tokens = metrics.prompt_tokens.labels(manifest.name)

    def admit(self, row: ReadingRow) -> None:
        """Nothing to prepare: a row keeps no state between steps."""

    def release(self, rows: Sequence[ReadingRow], live: int) -> None:
        """Nothing to keep."""

    def move(self, source: int, target: int) -> None:
        """Nothing to move."""

    def step(self, rows: Sequence[ReadingRow]) -> list[tuple[ReadingRow, Read]]:
        """Run the rows that go best with the one that was admitted first; the others stay live."""
        group = self._group([row for row in rows if not row.leaving])
        if not group:
            return []
        began = self._clock()
        answers = self._run([row.work.tokens for row in group])
        self._step_seconds.observe(self._clock() - began)
        self._batch_rows.observe(len(group))
        self._prompt_tokens.inc(sum(row.work.cost for row in group))
        for row in group:
            row.done = True
        return [(row, (row.work.place, answer)) for row, answer in zip(group, answers, strict=True)]

    def _group(self, waiting: list[ReadingRow]) -> list[ReadingRow]:
        if not waiting:
            return []
        first = min(waiting, key=lambda row: (row.admitted, row.submitted))
        waiting.sort(key=lambda row: row.work.cost)
        lengths = [row.work.cost for row in waiting]
        ends = partition(lengths, run_tokens=self._run_tokens, run_cost=self._run_cost)
        place = waiting.index(first)
        start, end = next(pair for pair in zip([0, *ends], ends, strict=False) if pair[1] > place)
        return waiting[start:end]

    def _run(self, texts: Sequence[tuple[int, ...]]) -> Sequence[Array]:
        length = np.array([len(tokens) for tokens in texts], np.int32)
        ids = np.zeros((len(texts), length.max()), np.int64)
        for row, tokens in zip(ids, texts, strict=True):
            row[: len(tokens)] = tokens
        feeds = {self._names["input_ids"]: ids, self._names["length"]: length}
        (answers,) = self._session.run(feeds, [self._output])
        return list(answers)


def texts_of(request: Embed | Classify) -> tuple[str | tuple[int, ...], ...]:
    """The request's texts and token ids. Raises BadRequest for other items."""
    texts = []
    for place, text in enumerate(request.inputs):
        if not isinstance(text, str | tuple):
            raise BadRequest("This model reads text.", code="invalid_type", param=f"input[{place}]")
        texts.append(text)
    return tuple(texts)


class Encoding:
    """Prepares and finishes the requests of one encoder."""

    def __init__(self, manifest: Manifest, encoder: Encoder, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._encoder = encoder
        self._around = len(encoder.prefix) + len(encoder.suffix)
        self.width = int(manifest.graphs[GRAPH].outputs[0].shape[-1])

    def around(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """A text's token ids with what the model wants around them."""
        return (*self._encoder.prefix, *tokens, *self._encoder.suffix)

    def prepare(self, request: Embed | Classify) -> list[Reading]:
        """One row a text. Raises BadRequest. May take long for long texts."""
        wanted = request.dimensions if isinstance(request, Embed) else None
        if wanted is not None and not 1 <= wanted <= self.width:
            raise BadRequest(f"This model's vectors have {self.width} dimensions.", param="dimensions")
        return [
            Reading(self._tokens(text, f"input[{place}]"), place)
            for place, text in enumerate(texts_of(request))
        ]

    def _tokens(self, text: str | tuple[int, ...], param: str) -> tuple[int, ...]:
        if isinstance(text, str):
            self._check_length(self.vocabulary.least_tokens(text) + self._around, param)
            tokens = self.around(self.vocabulary.encode(text, param))
        else:
            tokens = text
        if not tokens:
            raise BadRequest("The input must not be empty.", param=param)
        self._check_length(len(tokens), param)
        self.vocabulary.check(tokens, param)
        return tokens

    def _check_length(self, tokens: int, param: str) -> None:
        if tokens > self._encoder.context:
            raise BadRequest(
                f"The model reads at most {self._encoder.context} tokens; this text has {tokens} or more.",
                code="context_length_exceeded",
                param=param,
            )

    def embedded(self, request: Embed, answers: Sequence[Array]) -> tuple[Output, ...]:
        """Vectors of length 1, of the first `dimensions` only where that was asked."""
        _check_finite(answers)
        vectors = [_shortened(vector, request.dimensions) for vector in answers]
        return tuple(
            Output(array=Sent(vector.shape, vector.astype("<f4", copy=False).tobytes())) for vector in vectors
        )

    def classified(self, request: Classify, answers: Sequence[Array]) -> tuple[Output, ...]:  # noqa: ARG002 - as `embedded`
        """Every class with its probability, the most probable first."""
        _check_finite(answers)
        return tuple(Output(classes=self._ranked(answer.tolist())) for answer in answers)

    def _ranked(self, probabilities: Sequence[float]) -> tuple[tuple[str, float], ...]:
        pairs = zip(self._encoder.classes, probabilities, strict=True)
        return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _shortened(vector: Array, dimensions: int | None) -> Array:
    if dimensions is None or dimensions == len(vector):
        return vector
    short = vector[:dimensions]
    length = float(np.linalg.norm(short))
    return short / np.float32(length) if length > 0 else short


def _check_finite(answers: Sequence[Array]) -> None:
    for place, answer in enumerate(answers):
        if not np.isfinite(answer).all():
            raise BadRequest(
                "The model has no finite answer to this input.", code="not_finite", param=f"input[{place}]"
            )
