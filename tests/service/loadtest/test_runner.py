import asyncio
from time import perf_counter

import numpy as np
import pytest

from service.loadtest.arrivals import schedule
from service.loadtest.client import open_session, send
from service.loadtest.record import Record
from service.loadtest.report import series
from service.loadtest.runner import Send, Tally, closed_loop, open_loop
from service.loadtest.workload import Call
from tests.service.loadtest.known_server import Server

CALL = Call("/v1/anomalies", b'{"model": "ae", "input": [{}]}')


def taking(seconds: float) -> Send:
    async def one(number: int, due: float | None, start: float) -> Record:
        sent = perf_counter() - start
        await asyncio.sleep(seconds)
        return Record(sent if due is None else due - start, sent, perf_counter() - start, items=number)

    return one


class Stalling:
    """One device, as a server has: 2 ms for each request in turn, and one stall from `begin` to `end`."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin, self._end, self._device = begin, end, asyncio.Lock()

    async def __call__(self, number: int, due: float | None, start: float) -> Record:
        sent = perf_counter() - start
        async with self._device:
            now = perf_counter() - start
            if self._begin <= now < self._end:
                await asyncio.sleep(self._end - now)
            await asyncio.sleep(0.002)
        return Record(sent if due is None else due - start, sent, perf_counter() - start)


async def test_an_open_loop_sends_on_time_however_slow_the_answers_are() -> None:
    tally = Tally()
    due = schedule(100, 0, requests=30)
    await open_loop(taking(0.3), due, tally)
    assert len(tally.records) == 30
    assert [record.due for record in sorted(tally.records, key=lambda r: r.items)] == pytest.approx(due)
    assert max(record.lag for record in tally.records) < 0.25
    assert min(record.lag for record in tally.records) >= 0
    assert tally.most_in_flight > 15


async def test_an_open_loop_sees_the_stall_that_a_closed_loop_omits() -> None:
    opened, closed = Tally(), Tally()
    await open_loop(Stalling(0.2, 0.6), schedule(100, 3, seconds=0.8), opened)
    await closed_loop(Stalling(0.2, 0.6), 1, closed, seconds=0.8)
    # Half of the schedule falls into the stall; the closed loop saw it once among a hundred quick answers.
    assert np.percentile(series(opened.records, scheduled=True)["e2el_from_schedule"], 75) > 100
    assert np.percentile(series(closed.records, scheduled=False)["e2el"], 75) < 50


async def test_a_stalled_sender_shows_in_the_lag_and_in_the_latency_from_schedule() -> None:
    tally = Tally()

    async def blocking(number: int, due: float | None, start: float) -> Record:
        sent = perf_counter() - start
        if number == 0:
            while perf_counter() - start < 0.2:  # this process itself hangs
                pass
        return Record(due - start if due else sent, sent, perf_counter() - start)

    await open_loop(blocking, [0.0, 0.01, 0.02], tally)
    late = tally.records[1:]
    assert all(record.lag > 0.15 for record in late)
    assert all(record.latency < 0.05 for record in late)
    assert all(record.latency_from_schedule > 0.15 for record in late)


async def test_a_closed_loop_keeps_so_many_in_flight_and_no_more() -> None:
    tally = Tally()
    await closed_loop(taking(0.01), 4, tally, requests=20)
    assert sorted(record.items for record in tally.records) == list(range(20))
    assert tally.most_in_flight == 4
    assert tally.in_flight == 0


async def test_no_more_workers_than_requests() -> None:
    tally = Tally()
    await closed_loop(taking(0.01), 50, tally, requests=3)
    assert len(tally.records) == 3
    assert tally.most_in_flight == 3


async def test_a_duration_ends_a_closed_loop_and_awaits_what_was_sent() -> None:
    tally = Tally()
    await closed_loop(taking(0.05), 2, tally, seconds=0.12)
    assert 2 <= len(tally.records) <= 6
    assert max(record.sent for record in tally.records) < 0.12 + 0.01
    assert tally.in_flight == 0


async def test_what_an_interruption_cuts_off_is_counted() -> None:
    tally = Tally()
    task = asyncio.create_task(closed_loop(taking(10), 3, tally, requests=100))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.error for record in tally.records] == ["interrupted"] * 3
    assert tally.failed == 3
    assert all(0 < record.latency < 5 for record in tally.records)


async def test_an_interrupted_open_loop_counts_as_well() -> None:
    tally = Tally()
    task = asyncio.create_task(open_loop(taking(10), [0.0, 0.0, 60.0], tally))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.error for record in tally.records] == ["interrupted"] * 2


async def test_the_tally_counts_as_records_arrive() -> None:
    async def one(number: int, due: float | None, start: float) -> Record:
        return Record(0, 0, 1, error="timeout" if number == 1 else None, output_tokens=number)

    tally = Tally()
    await closed_loop(one, 1, tally, requests=4)
    assert (tally.failed, tally.output_tokens) == (1, 6)


async def test_against_a_server_with_50_ms(server: Server) -> None:
    server.delay = 0.05
    tally = Tally()
    async with open_session(5, {}) as session:

        async def one(number: int, due: float | None, start: float) -> Record:
            return await send(session, server.url, CALL, due=due, start=start)

        await open_loop(one, schedule(100, 0, requests=40), tally)
    assert {record.error for record in tally.records} == {None}
    p50 = np.percentile(series(tally.records, scheduled=True)["e2el"], 50)
    assert 50 <= p50 < 150
    assert server.most_live > 1
