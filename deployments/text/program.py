"""How a step of text generation binds its graph: chunks of prompts, then one decode over all rows.

Slot i of every state buffer belongs to live row i. Rows that take no part in a decode (their prompt is not through, or
their reader is behind) ride along and their result is discarded: writing the same place twice changes nothing. A
prompt's last token is fed in a decode as every token after it, so only decodes choose.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Final

import numpy as np

from deployments.errors import BadRequest
from deployments.messages import TextDelta
from deployments.metrics import Metrics
from deployments.rows import RowsFailed
from deployments.text.buckets import Buckets
from deployments.text.chunks import Chunks
from deployments.text.controls import ALTERNATIVES, Answers, Controls, Shape
from deployments.text.meters import Meters, TextRow
from deployments.text.prefixes import SHORTEST, as_array, common
from deployments.text.sequence import Chosen, Sequence
from deployments.text.slots import Slots
from model_store.errors import RunFailed
from model_store.manifest import Manifest
from model_store.session import Array, Binding, Session

Events = list[tuple[TextRow, TextDelta]]

# Bindings that are kept: batch sizes times what their rows may want.
_BINDINGS: Final = 256


class TextProgram:
    """Steps sequences of one model together, on the engine's thread."""

    def __init__(
        self,
        manifest: Manifest,
        step: Session,
        slots: Slots,
        metrics: Metrics,
        *,
        capacity: int,
        context: int,
        prefill_chunk: int,
        encode: Session | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if manifest.text is None:
            raise ValueError(f"{manifest.name} is not a text model")
        self.capacity = capacity
        self.text = manifest.text
        self._step, self._encode = step, encode
        self._slots = slots
        self._context = context
        self._clock = clock
        self._takes = set(step.inputs)
        self._controls = Controls(capacity, self.text.vocabulary)
        self._answers = Answers(capacity, 1)
        # The graph writes each token where it reads the next one from.
        self._ids = self._answers.token
        self._lengths = np.zeros(capacity, np.int32)
        self._source_length = np.zeros(capacity, np.int32)
        self._total = np.zeros((), np.int32)
        self._bindings: dict[tuple[Shape, int], Binding] = {}
        self._buckets = Buckets(capacity, context, exact=not step.captures)
        self._chunks = Chunks(prefill_chunk)
        self._meters = Meters(metrics, manifest.name)

    # -- rows come and go --------------------------------------------------------------------------------------------

    def admit(self, row: TextRow) -> None:
        """Set a slot up for its row: sampling parameters, state of a prompt that starts alike."""
        work, slot = row.work, row.slot
        self._controls.admit(slot, work)
        self._lengths[slot] = 0
        self._slots.begin(slot)
        self._make_room(row)
        if work.row % work.request.rows_each == 0:  # each prompt once, as in the answer's usage
            self._meters.prompt_tokens.inc(len(work.source or work.prompt))

    def move(self, source: int, target: int) -> None:
        """A row has moved to another slot."""
        self._slots.prefixes.forget(target)  # a row may pass through a slot in which one was just kept
        self._controls.move(source, target)
        self._lengths[target] = self._lengths[source]
        self._source_length[target] = self._source_length[source]
        self._ids[target] = self._ids[source]
        self._slots.copy(source, target, int(self._lengths[source]))

    def release(self, rows: Seq[TextRow], live: int) -> None:
        """These of the `live` rows are about to leave: keep the state of those that may be continued."""
        if not self._slots.keeps:
            return
        prefixes = self._slots.prefixes
        for row in rows:
            work = row.work
            if work.scope is None or work.fed < SHORTEST:
                continue
            target = row.slot if row.slot >= live - len(rows) else prefixes.room(live)
            if target is None:
                continue
            if target != row.slot:
                self._slots.copy(row.slot, target, work.fed)
            prefixes.keep(target, as_array(work.tokens), work.scope)

    def _make_room(self, row: TextRow) -> None:
        """Continue a kept prefix if there is one; another one in the row's slot moves where an older one is."""
        prefixes, work, slot = self._slots.prefixes, row.work, row.slot
        found, length = -1, 0
        if work.scope is not None:
            found, length = prefixes.find(work.prompt_array[:-1], work.scope)
        if prefixes.size(slot) - (length if found == slot else 0) >= SHORTEST:  # what would be lost
            other = prefixes.room(slot + 1, but=found)
            if other is not None and prefixes.older(other, slot):
                self._slots.copy(slot, other, prefixes.move(slot, other))
        prefixes.forget(slot)
        if found >= 0:
            if found != slot:
                self._slots.copy(found, slot, length)
            self._adopt(row, length)

    def _adopt(self, row: TextRow, tokens: int) -> None:
        work = row.work
        if work.leader is None:
            self._meters.cached_tokens.inc(tokens - work.cached)
            work.cached = tokens
        self._feed(row, tokens - work.fed)

    def _feed(self, row: TextRow, tokens: int) -> None:
        """So many more tokens of a row are in its slot."""
        row.work.fed += tokens
        self._lengths[row.slot] = min(row.work.fed, self._context - 1)

    # -- one step ----------------------------------------------------------------------------------------------------

    def step(self, rows: Seq[TextRow]) -> Events:
        """Some prompt, then one token for every row whose prompt is through."""
        events: Events = []
        self._prefill(rows)
        for row in rows:
            row.spent = row.work.fed
            if row.work.ready and not row.work.opened and not row.leaving:
                self._open(row, events)
        self._decode(rows, events)
        return events

    def _prefill(self, rows: Seq[TextRow]) -> None:
        pending = [row for row in rows if not row.work.ready and not row.leaving]
        if not pending:
            return
        pending.sort(key=lambda row: (row.admitted, row.submitted))
        budget = self._chunks.size(pending=len(pending), decoding=len(rows) - len(pending))
        while budget > 0:
            self._share(pending, rows)
            group = self._group([row for row in pending if self._may_start(row, rows)], budget)
            if not group:
                return
            try:
                # What an encoder reads cannot be cut: one run a step.
                budget -= budget if self._read(group) else self._run_chunk(group, budget)
            except RunFailed as error:
                for row in group:
                    row.work.scope = None  # nobody is to use what is in its slot
                raise RowsFailed(group) from error
        self._share(pending, rows)

    def _may_start(self, row: TextRow, rows: Seq[TextRow]) -> bool:
        """Whether a row has to compute prompt itself: its leader is not on the way to it."""
        work = row.work
        return not work.ready and not any(
            other.work is work.leader and not other.work.ready and not other.leaving for other in rows
        )

    def _share(self, pending: Seq[TextRow], rows: Seq[TextRow]) -> None:
        """Copy what other live rows have computed of prompts that start alike."""
        for row in pending:
            work = row.work
            if work.unread:
                self._share_source(row, rows)
            if work.unread or work.ready or (work.leader is None and work.fed > work.cached):
                continue
            least = min(SHORTEST, len(work.prompt) - 1) if work.leader is None else 1
            for other in rows:
                length = self._in_common(work, other.work) if other is not row else 0
                if length >= work.fed + least:
                    self._slots.copy(other.slot, row.slot, length)
                    self._adopt(row, length)

    def _share_source(self, row: TextRow, rows: Seq[TextRow]) -> None:
        """Copy what the encoder has made for another row of the same prompt."""
        for other in rows:
            if other.work is row.work.leader and not other.work.unread:
                self._slots.copy(other.slot, row.slot, 0)
                self._source_length[row.slot] = self._source_length[other.slot]
                row.work.unread = False

    def _in_common(self, work: Sequence, other: Sequence) -> int:
        """Tokens of a row's prompt that another row's state can give it."""
        if other is work.leader or (work.leader is not None and other.leader is work.leader):
            length = len(work.prompt) - 1
            return length if other.fed == length or (self._slots.divisible and other.fed > length) else 0
        if work.scope is None or work.scope != other.scope or not self._slots.divisible or not other.fed:
            return 0
        if other.prompt[0] != work.prompt[0]:
            return 0
        return min(common(work.prompt_array[:-1], other.prompt_array), other.fed)

    def _group(self, rows: Seq[TextRow], budget: int) -> list[TextRow]:
        """The next row; if it begins with all of its prompt, others in the slots beside it that do as well."""
        if not rows:
            return []
        first = rows[0]
        group = [first]
        if not self.text.attention or not _short(first.work, budget):
            return group
        by_slot = {
            row.slot: row for row in rows if row.work.unread == first.work.unread and _short(row.work, budget)
        }
        longest = _left(first.work)
        while (row := by_slot.get(group[-1].slot + 1)) is not None:
            longest = max(longest, _left(row.work))
            if (len(group) + 1) * longest > budget:
                break
            group.append(row)
        return group

    def _read(self, group: Seq[TextRow]) -> bool:
        """Run the encoder over what rows are about, padded to the right, unless they have been read."""
        if self._encode is None or not group[0].work.unread:
            return False
        sources = [row.work.source for row in group]
        lengths = np.array(list(map(len, sources)), np.int32)
        ids, first = _right_padded(sources), group[0].slot
        began = self._clock()
        self._encode.bind({"input_ids": ids, "length": lengths}, self._slots.encoded(first, len(group))).run()
        self._chunks.prefilled(ids.size, self._clock() - began)
        self._meters.stepped("prefill", self._clock() - began, len(group))
        self._source_length[first : first + len(group)] = lengths
        for row in group:
            row.work.unread = False
        return True

    def _run_chunk(self, group: Seq[TextRow], budget: int) -> int:
        """Feed the next tokens of one row, or the first ones of several, padded to the right. How many places it took."""
        # Attention takes another path where a run has one position: its bits would tell how a prompt was cut. So there
        # are always two, the second if need be the prompt's last token, which the next decode feeds again.
        least = 2 if self.text.attention else 1
        sizes = [min(len(row.work.prompt) - 1 - row.work.fed, budget) for row in group]
        parts = [
            row.work.prompt[row.work.fed : row.work.fed + max(size, least)]
            for row, size in zip(group, sizes, strict=True)
        ]
        ids = _right_padded(parts)
        first, count, size = group[0].work, len(group), sizes[0]
        select = target = np.zeros((count, 1), np.int64)
        alternatives = 0
        if first.wants_prompt_scores:  # alone in its run
            select = np.arange(size)[None]
            target = np.array([first.prompt[first.fed + 1 : first.fed + 1 + size]], np.int64)
            alternatives = min(ALTERNATIVES, self.text.vocabulary) if first.request.logprobs else 0
        answers = Answers(count, target.shape[1])
        ends = np.array([row.work.fed + len(part) for row, part in zip(group, parts, strict=True)], np.int32)
        feeds = {
            **self._controls.plain(group[0].slot, select, target, alternatives),
            "input_ids": ids,
            "seqlens_k": ends - 1,
            "total_sequence_length": np.array(ends.max(), np.int32),
        }
        began = self._clock()
        self._bind(feeds, answers.outputs(count, alternatives), group[0].slot).run()
        self._chunks.prefilled(ids.size, self._clock() - began)
        self._meters.stepped("prefill", self._clock() - began, count)
        self._slots.keep([row.slot for row in group], 0)
        if first.wants_prompt_scores:
            first.prompt_scores.extend(
                answers.chosen(0, place, alternatives, first.request.logprobs) for place in range(size)
            )
        for row, size in zip(group, sizes, strict=True):
            self._feed(row, size)
        return ids.size

    def _open(self, row: TextRow, events: Events) -> None:
        """The prompt is through: send what comes before the first token, once."""
        work = row.work
        opening = work.opening()
        if opening is not None:
            events.append((row, opening))
        if work.limit == 0:
            events.append((row, work.nothing_to_generate()))
            row.done = True

    def _decode(self, rows: Seq[TextRow], events: Events) -> None:
        active = [row for row in rows if row.work.ready and not row.leaving and not row.paused]
        if not active:
            return
        works: list[Sequence | None] = [None] * len(rows)
        for row in active:
            works[row.slot] = row.work
            self._ids[row.slot] = row.work.next_token
        shape = self._padded(self._controls.fill(works))
        began = self._clock()
        self._decode_binding(shape).run()
        self._chunks.decoded(self._clock() - began)
        self._meters.stepped("decode", self._clock() - began, len(active))
        self._slots.keep([row.slot for row in active], len(rows))
        wanted = [work.request.logprobs if work else None for work in works]
        chosen = self._answers.each(shape.alternatives, wanted)
        now = self._clock()
        self._meters.tokens(active, now)
        for row in active:
            self._feed(row, 1)
            self._push(row, chosen[row.slot], now, events)

    def _push(self, row: TextRow, chosen: Chosen, now: float, events: Events) -> None:
        work = row.work
        delta = work.push(chosen)
        if work.broken:
            row.ticket.fail_soon(
                BadRequest("The grammar grew too large while it was followed.", param="grammar")
            )
        if delta is None:
            return
        events.append((row, delta))
        if delta.finish is not None:
            row.done = True
            self._meters.ended(work, now)

    # -- binding -----------------------------------------------------------------------------------------------------

    def _padded(self, shape: Shape) -> Shape:
        """Make a run as large as its bucket. Rows beyond the live ones write behind what their slots keep for later."""
        rows = self._buckets.rows(shape.rows)
        for slot in range(shape.rows, rows):
            self._lengths[slot] = self._slots.prefixes.size(slot)
        self._total[...] = self._buckets.length(int(self._lengths[:rows].max()) + 1)
        return replace(shape, rows=rows)

    def _decode_binding(self, shape: Shape) -> Binding:
        """The cached binding for a batch; a captured one takes the greatest length as it was when it first ran."""
        key = (shape, int(self._total) if self._step.captures else 0)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= _BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            feeds = {
                **self._controls.inputs(shape),
                "input_ids": self._ids[: shape.rows],
                "seqlens_k": self._lengths[: shape.rows],
                "total_sequence_length": self._total,
            }
            outputs = self._answers.outputs(shape.rows, shape.alternatives)
            binding = self._bindings[key] = self._bind(feeds, outputs, 0, capture=self._step.captures)
        return binding

    def _bind(
        self, feeds: dict[str, Array], outputs: dict[str, Array], first: int, *, capture: bool = False
    ) -> Binding:
        count = len(feeds["input_ids"])
        past, present = self._slots.bound(first, count)
        feeds["source_length"] = self._source_length[first : first + count]
        inputs = {name: array for name, array in feeds.items() if name in self._takes}
        return self._step.bind({**inputs, **past}, {**outputs, **present}, capture=capture)


def _right_padded(rows: Seq[Seq[int]]) -> Array:
    """Token ids i64 [rows, longest], padded to the right."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return ids


def _left(work: Sequence) -> int:
    """Tokens to compute before a row's next decode."""
    return len(work.source) if work.unread else len(work.prompt) - 1 - work.fed


def _short(work: Sequence, budget: int) -> bool:
    """Whether one run within the budget can compute all of a prompt."""
    return work.fed == 0 and not work.wants_prompt_scores and _left(work) <= budget
