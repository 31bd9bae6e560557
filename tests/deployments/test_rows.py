import asyncio

import pytest

from deployments.errors import Cancelled, DeadlineExceeded, ModelFault
from deployments.rows import BACKLOG, Row, Ticket, timings


def ticket(rows: int = 1) -> Ticket[int]:
    return Ticket(asyncio.get_running_loop(), rows)


def row(of: Ticket[int], **fields: float) -> Row[str, int]:
    made: Row[str, int] = Row("work", of, submitted=fields.pop("submitted", 0.0))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


async def test_events_arrive_in_order() -> None:
    mail = ticket()
    mail.deliver([1, 2])
    mail.deliver([3])
    assert [await mail.next() for _ in range(3)] == [1, 2, 3]


async def test_a_waiting_reader_is_woken_by_the_next_delivery() -> None:
    mail = ticket()
    reader = asyncio.create_task(mail.next())
    await asyncio.sleep(0)
    mail.deliver([7])
    assert await reader == 7


async def test_what_was_delivered_before_a_failure_is_read_first() -> None:
    mail = ticket()
    mail.deliver([1])
    mail.fail(ModelFault("broken"))
    assert await mail.next() == 1
    with pytest.raises(ModelFault, match="broken"):
        await mail.next()


async def test_a_waiting_reader_is_woken_by_a_failure() -> None:
    mail = ticket()
    reader = asyncio.create_task(mail.next())
    await asyncio.sleep(0)
    mail.fail(ModelFault("broken"))
    with pytest.raises(ModelFault):
        await reader


async def test_the_first_failure_counts() -> None:
    mail = ticket()
    mail.fail(ModelFault("first"))
    mail.fail(DeadlineExceeded("second"))
    with pytest.raises(ModelFault, match="first"):
        await mail.next()


async def test_a_failure_from_another_thread_comes_behind_earlier_deliveries() -> None:
    mail = ticket()
    mail.loop.call_soon_threadsafe(mail.deliver, [1])
    await asyncio.to_thread(mail.fail_soon, ModelFault("broken"))
    assert await mail.next() == 1
    with pytest.raises(ModelFault):
        await mail.next()


async def test_giving_up_counts_before_the_event_loop_comes_to_it() -> None:
    mail = ticket()
    mail.deliver([1])
    mail.give_up(ModelFault("too late"))
    assert mail.closed
    assert await mail.next() == 1
    with pytest.raises(ModelFault, match="too late"):
        await mail.next()


def test_a_failure_for_a_closed_loop_closes_the_ticket() -> None:
    loop = asyncio.new_event_loop()
    mail: Ticket[int] = Ticket(loop)
    loop.close()
    mail.fail_soon(ModelFault("broken"))
    assert mail.closed


async def test_reading_a_closed_ticket_says_that_it_was_cancelled() -> None:
    mail = ticket()
    mail.close()
    with pytest.raises(Cancelled):
        await mail.next()


async def test_a_ticket_expires() -> None:
    mail = ticket()
    mail.expire_after(0.001, DeadlineExceeded("late"))
    with pytest.raises(DeadlineExceeded):
        await mail.next()
    assert mail.closed


async def test_closing_stops_the_timer() -> None:
    mail = ticket()
    mail.expire_after(0.001, DeadlineExceeded("late"))
    mail.close()
    await asyncio.sleep(0.005)
    assert mail.failure is None


async def test_without_a_limit_there_is_no_timer() -> None:
    mail = ticket()
    mail.expire_after(None, DeadlineExceeded("late"))
    mail.deliver([1])
    assert await mail.next() == 1


async def test_a_cancelled_reader_leaves_the_ticket_usable() -> None:
    mail = ticket()
    reader = asyncio.create_task(mail.next())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    mail.deliver([1])
    assert await mail.next() == 1


async def test_a_row_leaves_when_it_is_done_or_its_ticket_closed() -> None:
    mail = ticket()
    finished, waiting = row(mail, done=True), row(mail)
    assert finished.leaving
    assert not waiting.leaving
    mail.close()
    assert waiting.leaving


@pytest.mark.parametrize("rows", [1, 3])
async def test_rows_pause_while_their_backlog_is_full(rows: int) -> None:
    """What is still on its way to the event loop counts as well: a loop that is busy reads nothing."""
    mail = ticket(rows)
    each = row(mail)
    mail.sent += BACKLOG * rows - 1
    assert not each.paused
    mail.sent += 1
    assert each.paused
    mail.deliver([0])
    assert each.paused
    await mail.next()
    assert not each.paused


async def test_timings_are_the_longest_wait_and_model_time_and_the_mean_batch() -> None:
    mail = ticket()
    rows = [
        row(mail, submitted=1.0, admitted=1.5, model_seconds=0.25, steps=1, shared=4),
        row(mail, submitted=1.0, admitted=3.0, model_seconds=0.125, steps=3, shared=4),
    ]
    measured = timings(rows, encode=0.5)
    assert (measured.queue, measured.model, measured.encode, measured.batch) == (2.0, 0.25, 0.5, 2.0)


async def test_rows_without_a_step_count_as_a_batch_of_one() -> None:
    assert timings([row(ticket())]).batch == 1.0
