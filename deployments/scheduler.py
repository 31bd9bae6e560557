"""Who runs next: a bounded waiting line in front of a dense batch. Pure accounting; knows no device and no thread."""

from collections import deque
from collections.abc import Sequence
from typing import Generic

from deployments.errors import BadRequest, QueueFull
from deployments.rows import Event, Row, Ticket, Work


class Scheduler(Generic[Work, Event]):
    """First come, first served. Live rows occupy slots 0..n-1 without gaps, so that a batch is one slice of state."""

    def __init__(self, capacity: int, max_waiting: int) -> None:
        self.capacity = capacity
        self.max_waiting = max_waiting
        self.waiting: deque[Row[Work, Event]] = deque()
        self.live: list[Row[Work, Event]] = []

    def submit(self, rows: Sequence[Row[Work, Event]]) -> None:
        """Put all rows of a request into the line, or none. Raises QueueFull, BadRequest for more than ever fit."""
        most = self.capacity + self.max_waiting
        if len(rows) > most:
            raise BadRequest(
                f"The request has {len(rows)} rows; this model takes {most} at once.", code="too_many_rows"
            )
        if len(self.live) + len(self.waiting) + len(rows) > most:
            raise QueueFull("The model's waiting line is full.", retry_after_seconds=1.0)
        self.waiting.extend(rows)

    def admit(self, now: float) -> list[Row[Work, Event]]:
        """Move waiting rows into free slots; rows nobody waits for any more are dropped without costing a step."""
        admitted: list[Row[Work, Event]] = []
        while self.waiting and len(self.live) < self.capacity:
            row = self.waiting.popleft()
            if row.leaving:
                continue
            row.slot, row.admitted = len(self.live), now
            self.live.append(row)
            admitted.append(row)
        return admitted

    def retire(self) -> list[tuple[int, int]]:
        """Remove leaving rows. Returns the moves of state, (source, target) in order, that keep the rest dense."""
        moves: list[tuple[int, int]] = []
        for slot in reversed(range(len(self.live))):  # from the end: whatever fills a gap is known to stay
            if self.live[slot].leaving:
                last = self.live.pop()
                if slot < len(self.live):
                    self.live[slot], last.slot = last, slot
                    moves.append((len(self.live), slot))
        return moves

    def discard(self, ticket: Ticket[Event]) -> None:
        """Drop a request's waiting rows."""
        if any(row.ticket is ticket for row in self.waiting):
            self.waiting = deque(row for row in self.waiting if row.ticket is not ticket)
