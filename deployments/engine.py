"""THE loop: admit, run, emit, retire - the same for every kind of model, on a thread of its own.

Knows rows, not what is in them; knows no tensor, no HTTP and no Ray. The event loop is never blocked: it submits under
a lock held for microseconds, and gets one wake-up per step.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Protocol

from deployments.errors import StepFailed, Unavailable
from deployments.metrics import Metrics
from deployments.rows import Event, Row, RowsFailed, Ticket, Work
from deployments.scheduler import Scheduler

logger = logging.getLogger(__name__)

# How long rows may stand still for a reader while it takes a backlog's worth of events; and while the engine stops.
STALL_SECONDS: Final = 30.0
STOPPING_STALL_SECONDS: Final = 1.0
# Readers do not say when they have read: how often the engine looks while it has nothing else to do.
_POLL_SECONDS: Final = 0.002


class Program(Protocol[Work, Event]):
    """How one kind of model takes its steps."""

    capacity: int

    def admit(self, row: Row[Work, Event]) -> None:
        """Prepare the state of `row.slot`."""

    def step(self, rows: Sequence[Row[Work, Event]]) -> list[tuple[Row[Work, Event], Event]]:
        """Run the graph over the rows, slot i = rows[i]; set `row.done` on those that finished; return what to send.

        Whatever it raises ends all of them, but RowsFailed, which says which.
        """

    def release(self, rows: Sequence[Row[Work, Event]], live: int) -> None:
        """These of the `live` rows are about to leave."""

    def move(self, source: int, target: int) -> None:
        """Copy a slot's state."""


class Engine(Generic[Work, Event]):
    """One model's loop. `submit` and `cancel` belong to the event loop's thread, everything else to the engine's."""

    def __init__(
        self,
        name: str,
        program: Program[Work, Event],
        metrics: Metrics,
        *,
        max_waiting: int,
        max_waiting_tokens: float = math.inf,
        weights: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name
        self.program = program
        self.scheduler: Scheduler[Work, Event] = Scheduler(
            program.capacity, max_waiting, max_waiting_tokens, weights
        )
        self.clock = clock
        self._changed = threading.Condition()
        self._stopping = False
        self.faults = 0  # steps that failed, one after the other
        self._step_began: float | None = None
        self._paused: set[Ticket[Event]] = set()  # when they were last looked at, at
        self._looked = 0.0
        self._queue_seconds = metrics.queue_seconds.labels(name)
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)
        metrics.slots.labels(name).set(program.capacity)
        # Read when they are looked at: exact, and no work for a step.
        metrics.waiting.labels(name).set_function(lambda: len(self.scheduler.waiting))
        metrics.waiting_tokens.labels(name).set_function(lambda: self.scheduler.waiting.tokens)
        metrics.live.labels(name).set_function(lambda: len(self.scheduler.live))
        metrics.slots_used.labels(name).set_function(lambda: len(self.scheduler.live))

    # -- the event loop's side ---------------------------------------------------------------------------------------

    def submit(
        self,
        works: Sequence[Work],
        *,
        costs: Sequence[int] | None = None,
        principal: str = "",
        priority: int = 0,
        timeout_seconds: float | None = None,
    ) -> tuple[Ticket[Event], list[Row[Work, Event]]]:
        """Queue a request's rows; `costs` are the tokens each may take (without: 1).

        Raises QueueFull, BadRequest for too many, Unavailable while stopping.
        """
        now = self.clock()
        deadline = math.inf if timeout_seconds is None else now + timeout_seconds
        ticket: Ticket[Event] = Ticket(asyncio.get_running_loop(), len(works))
        rows = [
            Row(work, ticket, now, cost, principal, priority, deadline)
            for work, cost in zip(works, costs or [1] * len(works), strict=True)
        ]
        with self._changed:
            if self._stopping:
                raise Unavailable("The model is shutting down.", retry_after_seconds=1.0)
            self.scheduler.submit(rows)
            self._changed.notify()
        return ticket, rows

    def cancel(self, ticket: Ticket[Event]) -> None:
        """Nobody waits for these rows any more: they leave the line now, the batch at the end of the running step."""
        ticket.close()
        with self._changed:
            self.scheduler.discard(ticket)
            self._changed.notify()

    def stuck_seconds(self) -> float:
        """How long the running step has taken so far; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else self.clock() - began

    @property
    def alive(self) -> bool:
        """Whether the loop is running."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse new rows, finish what was accepted and is read, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    # -- the engine's side -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self.step()
                self.faults = 0
            except RowsFailed as error:
                logger.exception("A run of %s failed with %d of its rows.", self.name, len(error.rows))
                self._fault(error.rows)
            except Exception:
                logger.exception("A step of %s failed with %d rows.", self.name, len(self.scheduler.live))
                self._fault(self.scheduler.live)
                self.scheduler.live.clear()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self.scheduler.waiting and not self.scheduler.live:
                if self._stopping:
                    return False
                self._changed.wait()
            if self.scheduler.live and all(row.paused for row in self.scheduler.live):
                self._changed.wait(_POLL_SECONDS)
        return True

    def step(self) -> None:
        """Take one step. What it raises ends the rows that were live, not the engine."""
        self.admit()
        events = self.run()
        self.emit(events)
        self.retire()

    def admit(self) -> None:
        """Fill free slots from the waiting line."""
        with self._changed:
            admitted = self.scheduler.admit(self.clock())
        self._queue_seconds.observe_all([row.admitted - row.submitted for row in admitted])
        for row in admitted:
            self.program.admit(row)

    def run(self) -> list[tuple[Row[Work, Event], Event]]:
        """Run one step of the model over the live rows, and charge it to each of them."""
        live = self.scheduler.live
        if not live:
            return []
        self._step_began = began = self.clock()
        events = self.program.step(live)
        seconds = self.clock() - began
        self._step_began = None
        for row in live:
            row.model_seconds += seconds
            row.steps += 1
            row.shared += len(live)
        with self._changed:
            self.scheduler.served(self.clock())
        return events

    def emit(self, events: Sequence[tuple[Row[Work, Event], Event]]) -> None:
        """Send a step's events: one wake-up of each event loop, whatever the number of requests."""
        loops: dict[asyncio.AbstractEventLoop, dict[Ticket[Event], list[Event]]] = {}
        for row, event in events:
            row.ticket.sent += 1
            loops.setdefault(row.ticket.loop, {}).setdefault(row.ticket, []).append(event)
        for loop, mail in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, mail)
            except RuntimeError:  # that event loop is closed: its readers are gone
                for ticket in mail:
                    ticket.closed = True

    def retire(self) -> None:
        """Free the slots of rows that finished or were cancelled, keeping the live ones dense."""
        self._give_up_stalled()
        live = self.scheduler.live
        leaving = [row for row in live if row.leaving]
        if leaving:
            self.program.release(leaving, len(live))
        with self._changed:
            moves = self.scheduler.retire()
        for source, target in moves:
            self.program.move(source, target)

    def _give_up_stalled(self) -> None:
        """End requests that hold slots for a reader which, if it reads at all, only trickles."""
        now = self.clock()
        passed, self._looked = now - self._looked, now
        before, self._paused = self._paused, {row.ticket for row in self.scheduler.live if row.paused}
        patience = STOPPING_STALL_SECONDS if self._stopping else STALL_SECONDS
        for ticket in self._paused & before:
            if ticket.stall(passed) > patience:
                ticket.give_up(Unavailable("The answer was not read in time."))

    def _fault(self, rows: Sequence[Row[Work, Event]]) -> None:
        """A run with these rows in it failed: end their requests."""
        self.faults += 1
        self._step_began = None
        for row in rows:
            row.done = True  # leaves at the end of the next step, if it is not gone already
        failed = {row.ticket for row in rows}
        with self._changed:
            for ticket in failed:
                self.scheduler.discard(ticket)
        for ticket in failed:
            ticket.fail_soon(StepFailed("The model failed while it worked on this request."))


def _deliver(mail: dict[Ticket[Event], list[Event]]) -> None:
    for ticket, events in mail.items():
        ticket.deliver(events)
