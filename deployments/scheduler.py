"""Who runs next: a bounded, fair waiting line in front of a dense batch. Pure accounting; knows no device and no thread.

The engine calls, in each step: `admit(now)`, `served(now)` after the run, `retire()`; and `discard` at any time.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Generic

from deployments.errors import BadRequest, QueueFull
from deployments.line import Line
from deployments.pace import Pace
from deployments.rows import Event, Row, Ticket, Work

# How many times the room that is left one principal may hold: a greedy one leaves a ninth of the line to others.
_GREED: Final = 8
_RETRY_SECONDS: Final = (1, 60)


class Scheduler(Generic[Work, Event]):
    """Bounds, shares and slots. Live rows occupy slots 0..n-1 without gaps, so that a batch is one slice of state.

    `weights`: shares of principals in the line against each other, by tokens; 1 where one is not named.
    """

    def __init__(
        self,
        capacity: int,
        max_waiting: int,
        max_waiting_tokens: float = math.inf,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.capacity = capacity
        self.max_waiting = max_waiting
        self.max_waiting_tokens = max_waiting_tokens
        self.waiting: Line[Work, Event] = Line(weights)
        self.live: list[Row[Work, Event]] = []
        self.pace = Pace()
        self._counted = 0  # tokens that the live rows had spent when the step began

    def submit(self, rows: Sequence[Row[Work, Event]]) -> None:
        """Put all rows of a request, of one ticket, into the line, or none.

        Raises BadRequest for more rows than ever fit, QueueFull where there is no room, or (with the code
        `queue_too_long`) where the deadline would pass while they wait. A row that finds a free slot is never refused.
        """
        most = self.capacity + self.max_waiting
        if len(rows) > most:
            raise BadRequest(
                f"The request makes {len(rows)} rows; this model takes at most {most} at once.",
                code="too_many_rows",
            )
        if len(self.waiting) + len(rows) > self.capacity - len(self.live):
            self._check(rows)
        self.waiting.push(rows)

    def admit(self, now: float, limit: int | None = None) -> list[Row[Work, Event]]:
        """Move waiting rows, at most `limit`, into free slots.

        Rows that nobody waits for any more, or whose deadline has passed, are dropped without costing a step.
        """
        if not self.live:
            self.pace.begin(now)
        admitted: list[Row[Work, Event]] = []
        while len(self.live) < self.capacity and (limit is None or len(admitted) < limit):
            row = self.waiting.pop()
            if row is None:
                break
            if row.leaving or row.deadline <= now:
                self.waiting.refund(row.principal, row.cost)
                continue
            row.slot, row.admitted = len(self.live), now
            self.live.append(row)
            admitted.append(row)
        self._counted = sum(row.spent for row in self.live)
        return admitted

    def served(self, now: float) -> None:
        """Note what the step that is over has computed, before its rows retire."""
        self.pace.measure(sum(_spent(row) for row in self.live) - self._counted, now)
        for row in self.live:
            if row.done:
                self.pace.finish(_spent(row), row.cost)

    def retire(self) -> list[tuple[int, int]]:
        """Remove leaving rows. Returns the moves of state, (source, target) in order, that keep the rest dense."""
        moves: list[tuple[int, int]] = []
        for slot in reversed(range(len(self.live))):  # from the end: whatever fills a gap is known to stay
            row = self.live[slot]
            if row.leaving:
                self.waiting.refund(row.principal, row.cost - _spent(row))
                last = self.live.pop()
                if slot < len(self.live):
                    self.live[slot], last.slot = last, slot
                    moves.append((len(self.live), slot))
        return moves

    def discard(self, ticket: Ticket[Event]) -> None:
        """Drop a request's waiting rows."""
        self.waiting.discard(ticket)

    def _check(self, rows: Sequence[Row[Work, Event]]) -> None:
        first = rows[0]
        wait = self.pace.seconds(self.waiting.ahead(first.principal, first.priority))
        if not self._fits(first.principal, len(rows), sum(row.cost for row in rows)):
            raise _refusal("The model's waiting line is full.", "queue_full", wait)
        late = first.submitted + wait - first.deadline
        if late > 0:
            raise _refusal("The time limit would pass in the model's waiting line.", "queue_too_long", late)

    def _fits(self, principal: str, rows: int, tokens: int) -> bool:
        """Whether there is room in the line, for this principal.

        A line without anyone in it takes any one request, however many tokens. A principal with rows in it may only
        grow to a multiple of the room that is left, so that others find some (dynamic thresholds: Choudhury and Hahne,
        1998); without a key all are one principal, and none to protect.
        """
        room = self.capacity + self.max_waiting - len(self.live) - len(self.waiting)
        token_room = self.max_waiting_tokens - self.waiting.tokens
        if rows > room or (self.waiting and tokens > token_room):
            return False
        held_rows, held_tokens = self.waiting.held(principal)
        if not principal or not held_rows:
            return True
        return held_rows + rows <= _GREED * room and held_tokens + tokens <= _GREED * token_room


def _spent(row: Row[Work, Event]) -> int:
    return row.spent or (row.cost if row.done else 0)


def _refusal(message: str, code: str, seconds: float) -> QueueFull:
    least, most = _RETRY_SECONDS
    return QueueFull(message, code=code, retry_after_seconds=float(min(max(math.ceil(seconds), least), most)))
