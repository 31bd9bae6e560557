import asyncio
import threading
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from deployments import engine as engine_module
from deployments.engine import Engine
from deployments.errors import DeadlineExceeded, ModelFault, QueueFull, Unavailable
from deployments.rows import BACKLOG, Ticket
from tests.deployments.toys import Clock, CountedLoop, Counting, CountRow, running, until


async def read(ticket: Ticket[int], count: int) -> list[int]:
    return [await ticket.next() for _ in range(count)]


# -- the loop ----------------------------------------------------------------------------------------------------------


async def test_a_request_gets_its_events_in_order() -> None:
    with running(Counting(2)) as engine:
        ticket, rows = engine.submit([4])
        assert await read(ticket, 4) == [1, 2, 3, 4]
        assert rows[0].steps == 4


async def test_rows_of_several_requests_share_every_step() -> None:
    program = Counting(8, paced=True)
    with running(program) as engine:
        first, _ = engine.submit([5])
        assert await program.began() == [5]
        others = [engine.submit([goal])[0] for goal in (6, 7)]
        program.pace.release()
        assert await program.began() == [5, 6, 7]
        program.pace.release(20)
        assert await read(first, 5) == [1, 2, 3, 4, 5]
        assert await read(others[0], 6) == [1, 2, 3, 4, 5, 6]
        assert await read(others[1], 7) == [1, 2, 3, 4, 5, 6, 7]


async def test_rows_that_leave_do_not_disturb_the_state_of_the_others() -> None:
    program = Counting(8)
    with running(program) as engine:
        goals = [3, 9, 1, 7, 2, 8, 5, 4, 6, 3]
        tickets = [engine.submit([goal])[0] for goal in goals]
        answers = await asyncio.gather(*(read(t, goal) for t, goal in zip(tickets, goals, strict=True)))
    assert answers == [list(range(1, goal + 1)) for goal in goals]
    assert program.moves


def test_one_wake_up_per_step_whatever_the_number_of_requests() -> None:
    program = Counting(16, paced=True)
    with asyncio.Runner(loop_factory=CountedLoop) as runner, running(program) as engine:
        loop = runner.get_loop()
        assert isinstance(loop, CountedLoop)

        async def sixteen_requests() -> None:
            tickets = [engine.submit([5])[0] for _ in range(16)]
            loop.woken = 0
            program.pace.release(1000)
            await asyncio.gather(*(read(ticket, 5) for ticket in tickets))

        runner.run(sixteen_requests())
        assert loop.woken == program.steps.qsize() <= 6  # the first step may have begun with one row


async def test_each_event_loop_is_woken_for_its_own_requests() -> None:
    with running(Counting(4)) as engine:

        async def elsewhere() -> list[int]:
            return await read(engine.submit([3])[0], 3)

        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        assert await read(engine.submit([2])[0], 2) == [1, 2]
        assert await other == [1, 2, 3]


async def test_a_closed_event_loop_takes_its_requests_with_it() -> None:
    program = Counting(4, paced=True)
    with running(program) as engine:

        async def leave_at_once() -> None:
            engine.submit([1000])

        await asyncio.to_thread(asyncio.run, leave_at_once())
        program.pace.release(2)
        await until(lambda: not engine.scheduler.live and not engine.scheduler.waiting)
        program.pace.release(10)
        assert await read(engine.submit([2])[0], 2) == [1, 2]


async def test_timings_say_who_shared_a_step_and_how_long_it_took() -> None:
    clock, program = Clock(), Counting(4)

    def take_a_second(rows: Sequence[CountRow]) -> None:
        clock.now += 1

    program.before_step = take_a_second
    with running(program, clock=clock) as engine:
        ticket, rows = engine.submit([3, 3])
        await read(ticket, 6)
        assert [(row.model_seconds, row.steps, row.shared) for row in rows] == [(3.0, 3, 6)] * 2


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_cancellation_frees_the_slot_at_the_next_step() -> None:
    program = Counting(2, paced=True)
    with running(program) as engine:
        ticket, _ = engine.submit([100])
        engine.submit([200])
        engine.submit([300])
        while await program.began() != [100, 200]:
            program.pace.release()
        engine.cancel(ticket)
        program.pace.release()
        assert await program.began() == [200, 300]


async def test_a_request_cancelled_in_the_line_never_costs_a_step() -> None:
    program = Counting(1, paced=True)
    with running(program) as engine:
        first, _ = engine.submit([1])
        await program.began()
        waiting, _ = engine.submit([50, 50])
        last, _ = engine.submit([2])
        engine.cancel(waiting)
        assert len(engine.scheduler.waiting) == 1
        program.pace.release()
        assert await program.began() == [2]
        program.pace.release(2)
        assert await read(first, 1) == [1]
        assert await read(last, 2) == [1, 2]


async def test_a_deadline_ends_a_request_in_the_batch() -> None:
    program = Counting(2, paced=True)
    with running(program) as engine:
        ticket, _ = engine.submit([100])
        await program.began()
        ticket.expire_after(0.001, DeadlineExceeded("late"))
        with pytest.raises(DeadlineExceeded):
            await ticket.next()
        other, _ = engine.submit([200])
        program.pace.release()
        assert await program.began() == [200]
        program.pace.release()
        assert await other.next() == 1


async def test_a_deadline_ends_a_request_in_the_line() -> None:
    program = Counting(1, paced=True)
    with running(program) as engine:
        engine.submit([100])
        await program.began()
        ticket, _ = engine.submit([200])
        ticket.expire_after(0.001, DeadlineExceeded("late"))
        with pytest.raises(DeadlineExceeded):
            await ticket.next()
        engine.cancel(ticket)
        assert not engine.scheduler.waiting


# -- faults ------------------------------------------------------------------------------------------------------------


def broken(*_: object) -> None:
    raise RuntimeError("the device is gone")


def fine(*_: object) -> None:
    pass


async def test_a_failing_step_ends_its_rows_and_the_engine_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    program = Counting(2, paced=True)
    with running(program) as engine:
        inside = [engine.submit([5])[0] for _ in range(2)]
        while await program.began() != [5, 5]:
            program.pace.release()
        outside, _ = engine.submit([3])
        program.before_step = broken
        program.pace.release()
        for ticket in inside:
            with pytest.raises(ModelFault) as fault:
                await read(ticket, 6)
            assert "device" not in fault.value.message
        program.before_step = fine
        program.pace.release(3)
        assert await read(outside, 3) == [1, 2, 3]
        assert engine.alive
    assert "the device is gone" in caplog.text


async def test_a_step_that_failed_is_over() -> None:
    program = Counting(1)
    program.before_step = broken
    with running(program) as engine:
        ticket, _ = engine.submit([1])
        with pytest.raises(ModelFault):
            await ticket.next()
        assert engine.stuck_seconds() == 0
        assert engine.faults == 1
        program.before_step = fine
        assert await read(engine.submit([1])[0], 1) == [1]
        await until(lambda: engine.faults == 0)


async def test_a_failing_step_takes_the_rest_of_its_requests_out_of_the_line() -> None:
    program = Counting(2, paced=True)
    with running(program) as engine:
        large, _ = engine.submit([1] * 10)
        small, _ = engine.submit([4])
        await program.began()
        program.before_step = broken
        program.pace.release()
        with pytest.raises(ModelFault):
            await large.next()
        assert all(row.ticket is small for row in engine.scheduler.waiting)
        program.before_step = fine
        program.pace.release(10)
        assert await read(small, 4) == [1, 2, 3, 4]
        assert program.steps.get() == [4]


async def test_a_row_that_cannot_be_admitted_does_not_end_the_engine() -> None:
    program = Counting(2)
    program.before_admit = broken
    with running(program) as engine:
        ticket, _ = engine.submit([1])
        with pytest.raises(ModelFault):
            await ticket.next()
        program.before_admit = fine
        assert await read(engine.submit([2])[0], 2) == [1, 2]


async def test_state_that_cannot_be_moved_does_not_end_the_engine() -> None:
    program = Counting(2, paced=True)
    program.before_move = broken
    with running(program) as engine:
        short, _ = engine.submit([1])
        long, _ = engine.submit([100])
        program.pace.release(2)
        assert await read(short, 1) == [1]
        with pytest.raises(ModelFault):
            await read(long, 101)
        program.before_move = fine
        program.pace.release(10)
        assert await read(engine.submit([2])[0], 2) == [1, 2]


def test_the_time_of_a_hanging_step_shows() -> None:
    clock, program = Clock(), Counting(1, paced=True)

    async def hang(engine: Engine[int, int]) -> None:
        assert engine.stuck_seconds() == 0
        ticket, _ = engine.submit([1])
        await program.began()
        clock.now += 90
        assert engine.stuck_seconds() == 90
        program.pace.release()
        await ticket.next()

    with running(program, clock=clock) as engine:
        asyncio.run(hang(engine))
        assert engine.stuck_seconds() == 0


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_full_line_refuses_and_the_next_request_works() -> None:
    program = Counting(1, paced=True)
    with running(program, max_waiting=2) as engine:
        first, _ = engine.submit([1])
        await program.began()
        waiting = [engine.submit([1])[0] for _ in range(2)]
        with pytest.raises(QueueFull):
            engine.submit([1])
        program.pace.release(10)
        for ticket in (first, *waiting):
            assert await read(ticket, 1) == [1]
        assert await read(engine.submit([2])[0], 2) == [1, 2]


async def test_a_reader_that_does_not_read_pauses_its_rows() -> None:
    with running(Counting(2)) as engine:
        slow, rows = engine.submit([10 * BACKLOG])
        await until(lambda: rows[0].paused)
        quick, _ = engine.submit([2 * BACKLOG])
        assert await read(quick, 2 * BACKLOG) == list(range(1, 2 * BACKLOG + 1))
        assert len(slow.unread) == BACKLOG
        assert await read(slow, 10 * BACKLOG) == list(range(1, 10 * BACKLOG + 1))


async def pass_while_paused(engine: Engine[int, int], clock: Clock, seconds: float) -> None:
    """Let time pass in which the engine sees its one row paused from beginning to end."""
    await until(lambda: engine.scheduler.live[0].paused)
    for step in (0.001, seconds):
        clock.now += step
        await until(lambda: engine._looked == clock.now)


async def test_a_reader_that_never_reads_is_given_up() -> None:
    clock = Clock()
    with running(Counting(2), clock=clock) as engine:
        ticket, _ = engine.submit([10 * BACKLOG])
        await until(lambda: engine.scheduler.live)
        await pass_while_paused(engine, clock, engine_module.STALL_SECONDS - 1)
        assert not ticket.closed
        clock.now += 2
        await until(lambda: not engine.scheduler.live)
        await read(ticket, BACKLOG)
        with pytest.raises(Unavailable, match="not read"):
            await ticket.next()


async def test_a_reader_that_trickles_is_given_up() -> None:
    clock = Clock()
    with running(Counting(2), clock=clock) as engine:
        ticket, _ = engine.submit([10 * BACKLOG])
        await until(lambda: engine.scheduler.live)
        for _ in range(3):
            assert not ticket.closed
            await ticket.next()
            await pass_while_paused(engine, clock, engine_module.STALL_SECONDS / 3)
        clock.now += 1
        await until(lambda: ticket.closed)


async def test_a_slow_reader_has_the_patience_for_each_backlogs_worth() -> None:
    clock = Clock()
    with running(Counting(2), clock=clock) as engine:
        ticket, _ = engine.submit([10 * BACKLOG])
        await until(lambda: engine.scheduler.live)
        for _ in range(4 * 8):
            await pass_while_paused(engine, clock, engine_module.STALL_SECONDS / 8 - 1)
            await read(ticket, BACKLOG // 8)
        assert not ticket.closed


async def test_a_reader_that_reads_again_in_time_is_not_given_up() -> None:
    clock = Clock()
    with running(Counting(2), clock=clock) as engine:
        ticket, rows = engine.submit([3 * BACKLOG])
        await until(lambda: engine.scheduler.live)
        for _ in range(2):
            await pass_while_paused(engine, clock, engine_module.STALL_SECONDS - 1)
            await read(ticket, BACKLOG)
        await read(ticket, BACKLOG)
        assert rows[0].done


# -- starting and stopping ---------------------------------------------------------------------------------------------


async def test_stopping_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    program = Counting(1, paced=True)
    with running(program) as engine:
        tickets = [engine.submit([goal])[0] for goal in (3, 2)]
        await program.began()
        stopping = threading.Thread(target=engine.stop)
        stopping.start()
        await until(lambda: engine._stopping)
        with pytest.raises(Unavailable):
            engine.submit([1])
        program.pace.release(5)
        await asyncio.to_thread(stopping.join)
        assert not engine.alive
        assert await read(tickets[0], 3) == [1, 2, 3]
        assert await read(tickets[1], 2) == [1, 2]


async def test_stopping_does_not_wait_for_who_cannot_read_because_of_it() -> None:
    """`stop` on the event loop's own thread: its readers stand still until the engine has ended."""
    clock = Clock()
    program = Counting(1)
    program.before_step = lambda rows: clock.pass_seconds(0.1)
    with running(program, clock=clock) as engine:
        ticket, rows = engine.submit([10 * BACKLOG])
        await until(lambda: rows[0].paused)
        engine.stop()
        await read(ticket, BACKLOG)
        with pytest.raises(Unavailable):
            await ticket.next()


def test_an_engine_that_never_ran_can_be_stopped() -> None:
    with running(Counting(1)) as engine:
        engine.stop()
        assert not engine.alive


async def test_the_metrics_tell_what_waits_and_what_runs() -> None:
    program = Counting(2, paced=True)
    registry = CollectorRegistry()

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"atelier_{name}", {"model": "toy"})

    with running(program, registry=registry) as engine:
        ticket, _ = engine.submit([1] * 5)
        assert await program.began()

        assert value("live_rows") == value("slots_used") == value("slots") == 2
        assert value("waiting_rows") == 3
        program.pace.release(10)
        await read(ticket, 5)
        await until(lambda: value("live_rows") == 0)
        assert value("waiting_rows") == 0
        assert value("queue_seconds_count") == 5
