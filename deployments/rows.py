"""Rows and tickets: what the engine moves and where results go. Device-free; knows no model and no policy."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from deployments.errors import Cancelled
from deployments.messages import Timings

Work = TypeVar("Work")
Event = TypeVar("Event")

# Events of a row that a reader may leave unread before the request's rows stop being computed.
BACKLOG: Final = 64


@dataclass(eq=False, slots=True)
class Row(Generic[Work, Event]):
    """One sequence, picture or item on its way through the engine. Times are the engine's clock, in seconds.

    Its program keeps `spent`; one that does not is taken to spend a row's cost when it is done.
    """

    work: Work
    ticket: "Ticket[Event]"
    submitted: float
    # Tokens it may take, prompt and continuation; pixel-steps of a picture made in steps; 1 for an item.
    cost: int = 1
    principal: str = ""  # who asks; "" without a key
    priority: int = 0  # lower is sooner, among the rows of one principal
    deadline: float = math.inf
    spent: int = 0  # tokens computed so far
    admitted: float = 0.0
    slot: int = -1
    done: bool = False
    steps: int = 0
    shared: int = 0  # sum over its steps of the rows that were live: shared / steps is its mean batch
    model_seconds: float = 0.0

    @property
    def leaving(self) -> bool:
        """Finished, or nobody waits for it any more."""
        return self.done or self.ticket.closed

    @property
    def paused(self) -> bool:
        """Its reader is so far behind that computing more would only fill memory."""
        return self.ticket.sent - self.ticket.taken >= self.ticket.backlog


class RowsFailed(Exception):
    """A run of the model failed that had only some of a step's rows in it; the others are as they were before the step."""

    def __init__(self, rows: Sequence[Row[Any, Any]]) -> None:
        super().__init__(f"a run with {len(rows)} rows failed")
        self.rows = rows


class Ticket(Generic[Event]):
    """One request's way back: the engine's thread delivers events, one coroutine of `loop` reads them in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rows: int = 1) -> None:
        self.loop = loop
        self.backlog = BACKLOG * rows
        self.sent = 0  # events, counted by the engine's thread
        self.taken = 0  # events, counted by the reader
        self.unread: deque[Event] = deque()
        self.closed = False  # by the reader or by a failure; the engine drops the rows at its next step
        self.failure: Exception | None = None
        self._stalled = 0.0  # seconds, since `_mark`
        self._mark = 0  # of `taken`
        self._reader: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def expire_after(self, seconds: float | None, failure: Exception) -> None:
        """Fail with `failure` unless closed before."""
        if seconds is not None:
            self._timer = self.loop.call_later(seconds, self.fail, failure)

    def close(self) -> None:
        """The reader has all it wants. The engine drops rows that are still on their way."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand events over. Runs on the event loop."""
        self.unread.extend(events)
        self._wake()

    def stall(self, seconds: float) -> float:
        """The rows stood still for so long. How long altogether since the reader last took a backlog's worth."""
        if self.taken - self._mark >= self.backlog:
            self._stalled, self._mark = 0.0, self.taken
        self._stalled += seconds
        return self._stalled

    def fail(self, failure: Exception) -> None:
        """End the reader's wait with an error, after what was delivered before. Runs on the event loop."""
        self.failure = self.failure or failure
        self.closed = True
        self._wake()

    def fail_soon(self, failure: Exception) -> None:
        """The same from any thread, behind what is being delivered already."""
        try:
            self.loop.call_soon_threadsafe(self.fail, failure)
        except RuntimeError:  # that event loop is closed: its readers are gone
            self.closed = True

    def give_up(self, failure: Exception) -> None:
        """The same at once, also where the event loop does not come to it: nothing is on its way."""
        self.failure = self.failure or failure
        self.closed = True
        self.fail_soon(failure)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next(self) -> Event:
        """Wait for the next event. Raises what the ticket failed with."""
        while not self.unread:
            if self.failure is not None:
                raise self.failure
            if self.closed:
                raise Cancelled("The request was cancelled.")
            self._reader = self.loop.create_future()
            await self._reader
        self.taken += 1
        return self.unread.popleft()


def timings(rows: Sequence[Row[Work, Event]], encode: float = 0.0) -> Timings:
    """What a request's rows spent: the longest wait and model time of any, the mean batch of all."""
    steps = sum(row.steps for row in rows)
    return Timings(
        queue=max(row.admitted - row.submitted for row in rows),
        model=max(row.model_seconds for row in rows),
        encode=encode,
        batch=sum(row.shared for row in rows) / steps if steps else 1.0,
    )
