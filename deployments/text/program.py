"""How a step of text generation binds its graph: chunks of prompts one row at a time, then one decode over all rows.

Slot i of every state buffer belongs to live row i. Rows that take no part in a decode (their prompt is not through, or
their reader is behind) ride along and their result is discarded: writing the same place twice changes nothing.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Final

import numpy as np

from deployments.errors import BadRequest
from deployments.messages import Complete, TextDelta
from deployments.metrics import Metrics
from deployments.rows import Row
from deployments.text.sequence import Chosen, Sequence
from deployments.text.vocabulary import Vocabulary
from model_store.manifest import Manifest, State
from model_store.session import Array, Binding, Device, Session, StateBuffer

TextRow = Row[Sequence, TextDelta]

_DTYPES: Final = {"float32": np.float32, "float16": np.float16, "int64": np.int64, "int32": np.int32}


@dataclass(frozen=True, slots=True)
class _Slots:
    """Per-slot inputs of the graph; names are the roles of the `step` graph."""

    input_ids: Array
    select: Array
    target: Array
    temperature: Array
    top_k: Array
    top_p: Array
    uniform: Array
    seqlens_k: Array

    @classmethod
    def make(cls, count: int) -> "_Slots":
        return cls(
            input_ids=np.zeros((count, 1), np.int64),
            select=np.zeros((count, 1), np.int64),
            target=np.full((count, 1), -1, np.int64),
            temperature=np.ones(count, np.float32),
            top_k=np.zeros(count, np.int64),
            top_p=np.ones(count, np.float32),
            uniform=np.zeros(count, np.float32),
            seqlens_k=np.zeros(count, np.int32),
        )


class _Memory:
    """One state tensor of all slots. What cannot be written in place is written beside and copied back."""

    def __init__(self, state: State, slots: int, device: Device) -> None:
        self.state = state
        self.past = StateBuffer(slots, state.shape, _DTYPES[state.dtype], device)
        self.present = (
            self.past if state.in_place else StateBuffer(slots, state.shape, _DTYPES[state.dtype], device)
        )

    def keep(self, first: int, count: int) -> None:
        """Make what the step wrote the past of the next."""
        if self.present is not self.past:
            self.past.copy_from(self.present, first, count)


class TextProgram:
    """Steps sequences of one model together. All but `prepare` belongs to the engine's thread."""

    def __init__(
        self,
        manifest: Manifest,
        session: Session,
        vocabulary: Vocabulary,
        metrics: Metrics,
        *,
        slots: int,
        prefill_chunk: int,
        device: Device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if manifest.text is None:
            raise ValueError(f"{manifest.name} is not a text model")
        self.capacity = slots
        self.text = manifest.text
        self.vocabulary = vocabulary
        self._session = session
        self._chunk = prefill_chunk
        self._clock = clock
        self._eos = frozenset(self.text.eos_token_ids)
        graph = manifest.graphs["step"]
        self._takes = {tensor.role for tensor in graph.inputs}
        top = next(t.shape[-1] for t in graph.outputs if t.role == "top_token")
        self._top = int(top)
        self._in = _Slots.make(slots)
        self._total = np.zeros((), np.int32)
        self._out = self._outputs(slots, 1)
        self._memory = [_Memory(state, slots, device) for state in self.text.state]
        self._decode_bindings: dict[int, Binding] = {}
        name = manifest.name
        self._step_seconds = {k: metrics.step_seconds.labels(name, k) for k in ("prefill", "decode")}
        self._batch_rows = {k: metrics.batch_rows.labels(name, k) for k in ("prefill", "decode")}
        self._first_token = metrics.first_token_seconds.labels(name)
        self._inter_token = metrics.inter_token_seconds.labels(name)
        self._per_token = metrics.token_seconds.labels(name)
        self._prompt_tokens = metrics.prompt_tokens.labels(name)
        self._completion_tokens = metrics.completion_tokens.labels(name)

    # -- before the engine -------------------------------------------------------------------------------------------

    def prepare(self, request: Complete) -> list[Sequence]:
        """Check a request against the model and make its rows. Raises BadRequest. May take long for a long prompt."""
        prompts = [self._tokens(prompt, place) for place, prompt in enumerate(request.prompts)]
        return [
            Sequence(request, place * request.n + choice, prompt, self.vocabulary, self._eos)
            for place, prompt in enumerate(prompts)
            for choice in range(request.n)
        ]

    def _tokens(self, prompt: str | tuple[int, ...], place: int) -> tuple[int, ...]:
        param = f"prompt[{place}]"
        tokens = self.vocabulary.encode(prompt) if isinstance(prompt, str) else prompt
        if any(not 0 <= token < self.vocabulary.size for token in tokens):
            raise BadRequest(f"Token ids must be below {self.vocabulary.size}.", param=param)
        if not tokens and self.text.bos_token_id is not None:
            tokens = (self.text.bos_token_id,)
        if not tokens:
            raise BadRequest("The prompt must not be empty.", param=param)
        return tokens

    def check_context(self, sequences: Seq[Sequence]) -> None:
        """Refuse what cannot fit. Raises BadRequest."""
        for sequence in sequences:
            asked, limit = sequence.request.max_tokens, self.text.context
            if len(sequence.prompt) + asked > limit:
                raise BadRequest(
                    f"The model's context is {limit} tokens; the prompt has {len(sequence.prompt)} "
                    f"and {asked} more were asked for.",
                    code="context_length_exceeded",
                    param=f"prompt[{sequence.row // sequence.request.n}]",
                )

    # -- the engine's side -------------------------------------------------------------------------------------------

    def admit(self, row: TextRow) -> None:
        """Set the slot's sampling parameters. Old state needs no clearing where lengths say what counts."""
        request, slot = row.work.request, row.slot
        self._in.temperature[slot] = request.temperature
        self._in.top_k[slot] = request.top_k
        self._in.top_p[slot] = request.top_p
        for memory in self._memory:
            if not memory.state.in_place:
                memory.past.clear(slot)
        if row.work.row % request.n == 0:  # each prompt once, as in the answer's usage
            self._prompt_tokens.inc(len(row.work.prompt))

    def move(self, source: int, target: int) -> None:
        """Copy a slot's parameters and state."""
        for array in (self._in.temperature, self._in.top_k, self._in.top_p):
            array[target] = array[source]
        for memory in self._memory:
            memory.past.move(source, target)

    def step(self, rows: Seq[TextRow]) -> list[tuple[TextRow, TextDelta]]:
        """Some prompt, then one token for every row whose prompt is through."""
        events: list[tuple[TextRow, TextDelta]] = []
        budget = self._chunk
        for row in sorted((row for row in rows if not row.work.ready), key=lambda row: row.submitted):
            if budget > 0 and not row.leaving:
                budget -= self._prefill(row, budget, events)
        self._decode(rows, events)
        return events

    def _prefill(self, row: TextRow, budget: int, events: list[tuple[TextRow, TextDelta]]) -> int:
        work, slot = row.work, row.slot
        chunk = work.prompt[work.fed : work.fed + budget]
        following = work.prompt[work.fed + 1 : work.fed + 1 + len(chunk)]
        last = len(chunk) - 1
        select = range(len(chunk)) if work.wants_prompt_scores else (last,)
        target = [following[i] if i < len(following) else -1 for i in select]
        ends = work.fed + len(chunk) == len(work.prompt)
        generates = ends and work.request.max_tokens > 0
        if generates:
            self._in.uniform[slot] = work.uniforms.next()
        feeds = {
            name: getattr(self._in, name)[slot : slot + 1]
            for name in ("temperature", "top_k", "top_p", "uniform")
        }
        feeds["input_ids"] = np.array([chunk], np.int64)
        feeds["select"] = np.array([select], np.int64)
        feeds["target"] = np.array([target], np.int64)
        feeds["seqlens_k"] = np.array([work.fed + last], np.int32)
        self._total[...] = work.fed + len(chunk)
        outputs = self._outputs(1, len(target))
        began = self._clock()
        self._bind(feeds, outputs, slot, 1).run()
        self._observe("prefill", began, 1)
        for memory in self._memory:
            memory.keep(slot, 1)
        if work.wants_prompt_scores:
            work.prompt_scores = work.prompt_scores or [None]
            scored = [self._chosen(outputs, 0, i) for i in range(len(following))]
            work.prompt_scores.extend(scored)
        work.fed += len(chunk)
        if ends:
            self._open(row, self._chosen(outputs, 0, len(target) - 1) if generates else None, events)
        return len(chunk)

    def _open(self, row: TextRow, first: Chosen | None, events: list[tuple[TextRow, TextDelta]]) -> None:
        opening = row.work.opening()
        if opening is not None:
            events.append((row, opening))
        if first is not None:
            self._push(row, first, events)
        else:
            events.append((row, row.work.nothing_to_generate()))
            row.done = True

    def _decode(self, rows: Seq[TextRow], events: list[tuple[TextRow, TextDelta]]) -> None:
        active = [row for row in rows if row.work.ready and not row.leaving and not row.paused]
        if not active:
            return
        slots, count = self._in, len(rows)
        limit = self.text.context - 1
        for row in rows:
            slots.seqlens_k[row.slot] = min(row.work.fed, limit)
        for row in active:
            slots.input_ids[row.slot] = row.work.generated[-1]
            slots.uniform[row.slot] = row.work.uniforms.next()
        self._total[...] = slots.seqlens_k[:count].max() + 1
        began = self._clock()
        self._decode_binding(count).run()
        self._observe("decode", began, len(active))
        self._keep(rows, active)
        tokens = self._out["token"][:count, 0].tolist()
        logprobs = self._out["logprob"][:count, 0].tolist()
        for row in active:
            row.work.fed += 1
            wants = row.work.request.logprobs
            top = self._alternatives(self._out, row.slot, 0) if wants else ()
            self._push(row, Chosen(tokens[row.slot], logprobs[row.slot], top), events)

    def _keep(self, rows: Seq[TextRow], active: Seq[TextRow]) -> None:
        for memory in self._memory:
            if len(active) == len(rows):
                memory.keep(0, len(rows))
            else:
                for row in active:
                    memory.keep(row.slot, 1)

    def _push(self, row: TextRow, chosen: Chosen, events: list[tuple[TextRow, TextDelta]]) -> None:
        work, now = row.work, self._clock()
        if len(work.generated) == 0:
            work.first_seconds = now
            self._first_token.observe(now - row.submitted)
        else:
            self._inter_token.observe(now - work.last_seconds)
        work.last_seconds = now
        self._completion_tokens.inc()
        delta = work.push(chosen)
        if delta is None:
            return
        events.append((row, delta))
        if delta.finish is not None:
            row.done = True
            if len(work.generated) > 1:
                self._per_token.observe((now - work.first_seconds) / (len(work.generated) - 1))

    # -- binding -----------------------------------------------------------------------------------------------------

    def _outputs(self, batch: int, selected: int) -> dict[str, Array]:
        return {
            "token": np.zeros((batch, selected), np.int64),
            "logprob": np.zeros((batch, selected), np.float32),
            "top_token": np.zeros((batch, selected, self._top), np.int64),
            "top_logprob": np.zeros((batch, selected, self._top), np.float32),
        }

    def _decode_binding(self, count: int) -> Binding:
        """The cached binding for a batch of exactly `count` rows: on a CPU a padded row costs as much as a live one."""
        binding = self._decode_bindings.get(count)
        if binding is None:
            feeds = {name: getattr(self._in, name)[:count] for name in _Slots.__slots__}
            outputs = {name: array[:count] for name, array in self._out.items()}
            binding = self._decode_bindings[count] = self._bind(feeds, outputs, 0, count)
        return binding

    def _bind(self, feeds: dict[str, Array], outputs: dict[str, Array], first: int, count: int) -> Binding:
        if self.text.attention:
            feeds["total_sequence_length"] = self._total
        past = {memory.state.past: memory.past.place(first, count) for memory in self._memory}
        present = {memory.state.present: memory.present.place(first, count) for memory in self._memory}
        inputs = {name: array for name, array in feeds.items() if name in self._takes}
        return self._session.bind({**inputs, **past}, {**outputs, **present})

    def _chosen(self, outputs: dict[str, Array], row: int, place: int) -> Chosen:
        return Chosen(
            int(outputs["token"][row, place]),
            float(outputs["logprob"][row, place]),
            self._alternatives(outputs, row, place),
        )

    @staticmethod
    def _alternatives(outputs: dict[str, Array], row: int, place: int) -> tuple[tuple[int, float], ...]:
        tokens, logprobs = outputs["top_token"][row, place], outputs["top_logprob"][row, place]
        return tuple(zip(tokens.tolist(), logprobs.tolist(), strict=True))

    def _observe(self, kind: str, began: float, rows: int) -> None:
        self._step_seconds[kind].observe(self._clock() - began)
        self._batch_rows[kind].observe(rows)
