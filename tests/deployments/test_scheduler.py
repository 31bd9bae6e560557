"""The scheduler against a model of itself: lists of what was accepted, what runs and what state each slot holds."""

import asyncio
import itertools
import math
import random
from collections.abc import Mapping

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

    @rule(limit=st.none() | st.integers(0, CAPACITY))
    def admit(self, limit: int | None) -> None:
        got = self.scheduler.admit(now=1.0, limit=limit)
        expected: list[Row[int, None]] = []
        while self.line and len(self.running) < CAPACITY and (limit is None or len(expected) < limit):
            row = self.line.pop(0)
            if not row.leaving and row.deadline > 1:
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
    def pass_a_deadline(self, data: st.DataObject) -> None:
        """A row whose time is over before it has a place never gets one; in the batch its ticket ends it."""
        data.draw(st.sampled_from(self.running + self.line)).deadline = 1.0

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


LOOP = asyncio.new_event_loop()
LOOP.close()


def rows(
    count: int = 1,
    *,
    cost: int = 1,
    principal: str = "",
    submitted: float = 0.0,
    deadline: float = math.inf,
    priority: int = 0,
) -> list[Row[int, None]]:
    ticket: Ticket[None] = Ticket(LOOP, count)
    return [
        Row(place, ticket, submitted, cost=cost, principal=principal, deadline=deadline, priority=priority)
        for place in range(count)
    ]


def step(scheduler: Scheduler[int, None], now: float, tokens: int = 1) -> list[Row[int, None]]:
    """One step of `tokens` tokens for each row, which takes a second. Returns the rows that finished."""
    scheduler.admit(now)
    for row in scheduler.live:
        row.spent = min(row.spent + tokens, row.cost)
        row.done = row.spent == row.cost
    scheduler.served(now + 1)
    finished = [row for row in scheduler.live if row.done]
    scheduler.retire()
    return finished


# -- slots -------------------------------------------------------------------------------------------------------------


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


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_request_that_can_never_fit_is_no_matter_of_waiting() -> None:
    scheduler: Scheduler[int, None] = Scheduler(CAPACITY, MAX_WAITING)
    with pytest.raises(BadRequest) as refused:
        scheduler.submit(rows(CAPACITY + MAX_WAITING + 1))
    assert refused.value.code == "too_many_rows"
    scheduler.submit(rows(CAPACITY + MAX_WAITING))


def test_the_line_is_bounded_by_tokens_as_well() -> None:
    scheduler: Scheduler[int, None] = Scheduler(1, 100, max_waiting_tokens=100)
    scheduler.submit(rows(cost=1000))
    scheduler.admit(0.0)
    scheduler.submit(rows(2, cost=50))
    with pytest.raises(QueueFull) as refused:
        scheduler.submit(rows(cost=1))
    assert refused.value.code == "queue_full"
    assert scheduler.waiting.tokens == 100


def test_what_finds_a_free_slot_is_never_refused() -> None:
    scheduler: Scheduler[int, None] = Scheduler(4, 0, max_waiting_tokens=1)
    for _ in range(4):
        scheduler.submit(rows(cost=1000, principal="a"))
    with pytest.raises(QueueFull):
        scheduler.submit(rows(principal="b"))
    assert len(scheduler.admit(0.0)) == 4


def test_an_empty_line_takes_any_one_request() -> None:
    scheduler: Scheduler[int, None] = Scheduler(1, 10, max_waiting_tokens=10)
    scheduler.submit(rows())
    scheduler.admit(0.0)
    scheduler.submit(rows(8, cost=1000, principal="a"))
    with pytest.raises(QueueFull):
        scheduler.submit(rows(principal="a"))


@pytest.mark.parametrize(("waiting", "tokens", "each"), [(90, 10**9, 1), (10_000, 900, 10)])
def test_one_principal_cannot_fill_the_line_alone(waiting: int, tokens: int, each: int) -> None:
    """It stops where a ninth is left, by rows or by tokens; whoever comes next finds room, and so on."""
    scheduler: Scheduler[int, None] = Scheduler(1, waiting, tokens)
    scheduler.submit(rows())
    scheduler.admit(0.0)

    def fill(principal: str) -> int:
        for accepted in itertools.count():
            try:
                scheduler.submit(rows(cost=each, principal=principal))
            except QueueFull:
                return accepted
        raise AssertionError

    first, second = fill("greedy"), fill("greedy as well")
    assert first == 80
    assert 1 <= second <= 10
    scheduler.submit(rows(cost=each, principal="modest"))


def test_without_keys_the_whole_line_is_for_all() -> None:
    scheduler: Scheduler[int, None] = Scheduler(1, 90)
    for _ in range(91):
        scheduler.submit(rows())
    with pytest.raises(QueueFull):
        scheduler.submit(rows())


# -- time --------------------------------------------------------------------------------------------------------------


def paced(max_waiting: int = 100) -> Scheduler[int, None]:
    """A scheduler of one slot that has seen two tokens a second, and has one row of 20 tokens in its slot."""
    scheduler: Scheduler[int, None] = Scheduler(1, max_waiting)
    scheduler.submit(rows(cost=20))
    for second in range(-10, 0):
        step(scheduler, float(second), tokens=2)
    assert not scheduler.live
    scheduler.submit(rows(cost=20))
    scheduler.admit(0.0)
    return scheduler


def refusal(scheduler: Scheduler[int, None], more: list[Row[int, None]]) -> tuple[str, float | None]:
    with pytest.raises(QueueFull) as refused:
        scheduler.submit(more)
    return refused.value.code, refused.value.retry_after_seconds


def test_when_to_come_back_is_computed_from_what_waits_and_how_fast_it_goes() -> None:
    scheduler = paced(max_waiting=3)
    scheduler.submit(rows(3, cost=15))
    assert refusal(scheduler, rows()) == ("queue_full", 23.0)


@pytest.mark.parametrize(("cost", "seconds"), [(1, 1.0), (10_000, 60.0)])
def test_when_to_come_back_is_between_a_second_and_a_minute(cost: int, seconds: float) -> None:
    scheduler = paced(max_waiting=1)
    scheduler.submit(rows(cost=cost))
    assert refusal(scheduler, rows()) == ("queue_full", seconds)


def test_as_long_as_nothing_was_measured_it_is_a_second() -> None:
    scheduler: Scheduler[int, None] = Scheduler(1, 1)
    scheduler.submit(rows(2, cost=10_000))
    assert refusal(scheduler, rows(deadline=0.1)) == ("queue_full", 1.0)


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    """With 100 tokens ahead at two a second it is 50 seconds until its turn."""
    scheduler = paced()
    scheduler.submit(rows(5, cost=20))
    assert refusal(scheduler, rows(submitted=3.0, deadline=40.0)) == ("queue_too_long", 13.0)
    scheduler.submit(rows(submitted=3.0, deadline=60.0))


def test_what_is_ahead_of_others_does_not_count() -> None:
    scheduler = paced()
    scheduler.submit(rows(5, cost=20, principal="a"))
    scheduler.submit(rows(cost=10, principal="b", deadline=1.0))
    scheduler.submit(rows(cost=10, principal="a", priority=-1, deadline=1.0))
    code, _ = refusal(scheduler, rows(principal="a", deadline=1.0))
    assert code == "queue_too_long"


def test_rows_that_stop_early_make_the_line_faster() -> None:
    scheduler: Scheduler[int, None] = Scheduler(1, 100)
    for second in range(50):
        scheduler.submit(rows(cost=1000))
        [row] = scheduler.admit(float(second))
        row.spent, row.done = 10, True
        scheduler.served(second + 1.0)
        scheduler.retire()
    scheduler.submit(rows(cost=1000))
    scheduler.admit(50.0)
    scheduler.submit(rows(4, cost=1000))
    assert refusal(scheduler, rows(submitted=50.0, deadline=53.0)) == ("queue_too_long", 1.0)
    scheduler.submit(rows(submitted=50.0, deadline=54.5))


def test_rows_whose_program_counts_no_tokens_spend_their_cost_when_they_are_done() -> None:
    scheduler: Scheduler[int, None] = Scheduler(4, 100)
    for second in range(10):
        scheduler.submit(rows(4))
        for row in scheduler.admit(float(second)):
            row.done = True
        scheduler.served(second + 1.0)
        scheduler.retire()
    assert scheduler.pace.seconds(100) == pytest.approx(25)


def test_rows_that_an_engine_drops_do_not_disturb_the_measure() -> None:
    scheduler = paced()
    step(scheduler, 0.0, tokens=2)
    scheduler.live.clear()
    scheduler.submit(rows(cost=20))
    for second in range(1, 11):
        step(scheduler, float(second), tokens=2)
    assert scheduler.pace.seconds(100) == pytest.approx(50)


# -- fairness, simulated -----------------------------------------------------------------------------------------------


class Load:
    """Requests of random lengths at random times, a step a second, over a scheduler of 16 slots."""

    def __init__(self, arrivals: Mapping[str, float]) -> None:
        """`arrivals`: requests per step of each principal."""
        self.arrivals = arrivals
        self.scheduler: Scheduler[int, None] = Scheduler(16, 256, 100_000)
        self.accepted = 0
        self.refused: dict[str, int] = dict.fromkeys(arrivals, 0)
        self.seconds: dict[str, list[float]] = {principal: [] for principal in arrivals}
        self._chance = random.Random(7)

    def run(self, steps: int) -> "Load":
        for now in range(steps):
            for principal, rate in self.arrivals.items():
                while self._chance.random() < rate / (1 + rate):
                    self._arrive(principal, float(now))
            self._step(float(now))
        return self

    def drain(self) -> None:
        now = 1e6
        while self.scheduler.waiting or self.scheduler.live:
            self._step(now)
            now += 1

    def p99(self, principals: str) -> float:
        seconds = sorted(s for principal in principals for s in self.seconds[principal])
        return seconds[len(seconds) * 99 // 100]

    def _arrive(self, principal: str, now: float) -> None:
        cost, priority = self._chance.randint(16, 128), self._chance.randint(0, 3)
        try:
            self.scheduler.submit(rows(cost=cost, principal=principal, submitted=now, priority=priority))
            self.accepted += 1
        except QueueFull:
            self.refused[principal] += 1

    def _step(self, now: float) -> None:
        for row in step(self.scheduler, now):
            self.seconds[row.principal].append(now + 1 - row.submitted)


NORMAL = 0.5 * 16 / 72 / 4  # four of them keep half of the slots busy


def test_a_principal_that_sends_ten_times_as_much_does_not_slow_the_others() -> None:
    quiet = Load(dict.fromkeys("abcd", NORMAL)).run(8000)
    hot = Load({"a": 10 * NORMAL, "b": NORMAL, "c": NORMAL, "d": NORMAL}).run(8000)
    assert hot.p99("bcd") <= 1.5 * quiet.p99("bcd")
    assert hot.refused["a"] > 0
    assert [hot.refused[principal] for principal in "bcd"] == [0, 0, 0]
    assert hot.p99("a") > 5 * quiet.p99("a"), "it waits for itself"


def test_a_principal_pays_for_what_its_rows_have_taken() -> None:
    """Rows of `a` may take 1000 tokens and end after 10, as all of `b` do; every second one's time is over before."""
    scheduler: Scheduler[int, None] = Scheduler(1, 1000)
    scheduler.submit(rows())
    scheduler.admit(0.0)
    for place in range(100):
        scheduler.submit(rows(cost=1000, principal="a", deadline=0.5 if place % 2 else math.inf))
        scheduler.submit(rows(cost=10, principal="b"))
    served = ""
    for now in range(1, 80):
        for row in scheduler.live:
            row.done, row.spent = True, min(row.cost, 10)
            served += row.principal
        scheduler.served(float(now))
        scheduler.retire()
        scheduler.admit(float(now))
    assert abs(served.count("a") - served.count("b")) <= 2


def test_whatever_is_accepted_is_served_in_the_end() -> None:
    load = Load({"a": 20 * NORMAL, "b": 5 * NORMAL, "c": NORMAL, "": NORMAL}).run(2000)
    load.drain()
    assert load.accepted == sum(len(seconds) for seconds in load.seconds.values())
