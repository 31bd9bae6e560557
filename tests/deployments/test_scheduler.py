"""The scheduler against a model of itself: lists of what was accepted, what runs and what state each slot holds."""

import asyncio

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deployments.errors import BadRequest, QueueFull
from deployments.rows import Row, Ticket
from deployments.scheduler import Scheduler

CAPACITY, MAX_WAITING = 4, 6


class SchedulerMachine(RuleBasedStateMachine):
    """Rows are numbered in the order they were submitted; a slot's state is the number of the row it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.scheduler: Scheduler[int, None] = Scheduler(CAPACITY, MAX_WAITING)
        self.line: list[Row[int, None]] = []  # accepted, not yet admitted or dropped
        self.running: list[Row[int, None]] = []
        self.state: list[int | None] = [None] * CAPACITY
        self.submitted = 0
        self.admitted: list[int] = []

    def teardown(self) -> None:
        self.loop.close()

    @rule(count=st.integers(1, CAPACITY + MAX_WAITING))
    def submit(self, count: int) -> None:
        ticket: Ticket[None] = Ticket(self.loop, count)
        rows = [Row(self.submitted + i, ticket, submitted=0.0) for i in range(count)]
        room = CAPACITY + MAX_WAITING - len(self.running) - len(self.line)
        if count > room:
            with pytest.raises(QueueFull) as refused:
                self.scheduler.submit(rows)
            assert refused.value.retry_after_seconds
        else:
            self.scheduler.submit(rows)
            self.line.extend(rows)
            self.submitted += count

    @rule()
    def admit(self) -> None:
        got = self.scheduler.admit(now=1.0)
        expected = []
        while self.line and len(self.running) < CAPACITY:
            row = self.line.pop(0)
            if not row.leaving:
                expected.append(row)
                self.running.append(row)
        assert got == expected
        for row in got:
            assert row.admitted == 1.0
            self.state[row.slot] = row.work
            self.admitted.append(row.work)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish_some(self, data: st.DataObject) -> None:
        for row in data.draw(st.lists(st.sampled_from(self.running), unique_by=id)):
            row.done = True

    @precondition(lambda self: self.running or self.line)
    @rule(data=st.data())
    def fail_a_ticket(self, data: st.DataObject) -> None:
        """A deadline closes a ticket without taking its rows out of the line."""
        data.draw(st.sampled_from(self.running + self.line)).ticket.closed = True

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.line)).ticket
        self.scheduler.discard(ticket)
        self.line = [row for row in self.line if row.ticket is not ticket]

    @rule()
    def retire(self) -> None:
        staying = [row for row in self.running if not row.leaving]
        moves = self.scheduler.retire()
        for source, target in moves:
            self.state[target] = self.state[source]
        assert len(moves) <= len(self.running) - len(staying)
        assert {row.work for row in self.scheduler.live} == {row.work for row in staying}
        self.running = list(self.scheduler.live)

    @invariant()
    def live_rows_are_dense(self) -> None:
        assert [row.slot for row in self.scheduler.live] == list(range(len(self.scheduler.live)))

    @invariant()
    def every_slot_holds_its_rows_state(self) -> None:
        assert [self.state[row.slot] for row in self.scheduler.live] == [
            row.work for row in self.scheduler.live
        ]

    @invariant()
    def nothing_is_lost_and_the_line_is_bounded(self) -> None:
        assert list(self.scheduler.waiting) == self.line
        assert len(self.scheduler.live) <= CAPACITY
        assert len(self.scheduler.live) + len(self.scheduler.waiting) <= CAPACITY + MAX_WAITING

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.admitted == sorted(self.admitted)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def rows(count: int) -> list[Row[int, None]]:
    loop = asyncio.new_event_loop()
    loop.close()
    ticket: Ticket[None] = Ticket(loop, count)
    return [Row(i, ticket, submitted=0.0) for i in range(count)]


def test_a_request_that_can_never_fit_is_no_matter_of_waiting() -> None:
    scheduler: Scheduler[int, None] = Scheduler(CAPACITY, MAX_WAITING)
    with pytest.raises(BadRequest) as refused:
        scheduler.submit(rows(CAPACITY + MAX_WAITING + 1))
    assert refused.value.code == "too_many_rows"
    scheduler.submit(rows(CAPACITY + MAX_WAITING))


def test_a_gap_is_filled_by_the_last_row_that_stays() -> None:
    scheduler: Scheduler[int, None] = Scheduler(5, 0)
    five = rows(5)
    scheduler.submit(five)
    scheduler.admit(0.0)
    five[1].done = five[4].done = True
    assert scheduler.retire() == [(3, 1)]
    assert [row.work for row in scheduler.live] == [0, 3, 2]


def test_nothing_moves_when_all_leave() -> None:
    scheduler: Scheduler[int, None] = Scheduler(5, 0)
    five = rows(5)
    scheduler.submit(five)
    scheduler.admit(0.0)
    for row in five:
        row.done = True
    assert scheduler.retire() == []
    assert scheduler.live == []
