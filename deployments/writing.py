"""Answers requests to models that write text: a stream of deltas, or all of them joined."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from deployments.desk import Desk
from deployments.effort import SMALL_TEXT
from deployments.entry import submit
from deployments.messages import Chat, Complete, TextDelta, Usage
from deployments.model import TextModel
from deployments.rows import Row, timings
from deployments.text.sequence import Sequence as TextSequence


class Writer:
    """For all such models of one process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def stream(self, model: TextModel, request: Complete) -> AsyncGenerator[TextDelta, None]:
        """Deltas as tokens come, the last of them with what the request consumed. Closing the generator cancels the rest."""
        sequences = await self._prepare(model, request)
        costs = [len(row.prompt) + row.limit for row in sequences]
        ticket, rows = submit(
            model.engine, request, sequences, costs, principal=request.principal, priority=request.priority
        )
        open_rows = len(rows)
        try:
            while open_rows:
                delta = await ticket.next()
                if delta.finish is not None:
                    open_rows -= 1
                if not open_rows:
                    delta = _finished(model, rows, delta)
                yield delta
        finally:
            self._desk.leave(model.engine, ticket, open_rows)

    async def collect(self, model: TextModel, request: Complete) -> tuple[TextDelta, ...]:
        """One delta a row; of each prompt the `n` most probable rows where more were computed."""
        parts: list[list[TextDelta]] = [[] for _ in range(len(request.prompts) * request.rows_each)]
        stream = self.stream(model, request)
        async with aclosing(stream):
            async for delta in stream:
                parts[delta.row].append(delta)
                last = delta
        whole = _best(request, [_join(row, deltas) for row, deltas in enumerate(parts)], last)
        whole[-1] = replace(whole[-1], usage=last.usage, timings=last.timings)
        return tuple(replace(delta, version=last.version) for delta in whole)

    async def _prepare(self, model: TextModel, request: Complete) -> list[TextSequence]:
        prepare = model.prompts.prepare
        plain = request.grammar is None and not any(isinstance(prompt, Chat) for prompt in request.prompts)
        small = plain and sum(map(len, request.prompts)) <= SMALL_TEXT  # type: ignore[arg-type]  # no conversation
        return prepare(request) if small else await self._desk.beside(prepare, request)


def _join(row: int, deltas: Sequence[TextDelta]) -> TextDelta:
    return TextDelta(
        row,
        "".join(delta.text for delta in deltas),
        tuple(token for delta in deltas for token in delta.token_ids),
        tuple(score for delta in deltas for score in delta.logprobs),
        deltas[-1].finish,
    )


def _best(request: Complete, rows: Sequence[TextDelta], last: TextDelta) -> list[TextDelta]:
    """Of each prompt's rows the `n` most probable, best first; all of them, in their order, where no more were computed."""
    if request.rows_each == request.n:
        return list(rows)
    kept: list[TextDelta] = []
    for first in range(0, len(rows), request.rows_each):
        of_prompt = sorted(
            range(first, first + request.rows_each), key=lambda row: last.mean_logprobs[row], reverse=True
        )
        kept.extend(rows[row] for row in of_prompt[: request.n])
    return [replace(delta, row=place) for place, delta in enumerate(kept)]


def _finished(model: TextModel, rows: Sequence[Row[TextSequence, TextDelta]], delta: TextDelta) -> TextDelta:
    """The request's last delta, with what the request consumed."""
    works = [row.work for row in rows]
    usage = Usage(
        # Each prompt is counted once, however many choices continue it.
        prompt_tokens=sum(len(work.source or work.prompt) for work in works) // works[0].request.rows_each,
        cached_tokens=sum(work.cached for work in works),
        completion_tokens=sum(len(work.generated) for work in works),
    )
    first = min(
        (work.first_seconds - row.submitted for row, work in zip(rows, works, strict=True) if work.generated),
        default=None,
    )
    return replace(
        delta,
        usage=usage,
        timings=replace(timings(rows), first=first),
        version=model.manifest.version,
        mean_logprobs=tuple(work.mean_logprob for work in works),
    )
