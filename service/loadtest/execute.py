"""One load test from its plan to its records: find the model, warm up, run. Prints nothing; `watch` may."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from service.loadtest.arrivals import schedule
from service.loadtest.client import open_session, send
from service.loadtest.plan import LoadTestError, Plan, build, find_model
from service.loadtest.record import Record
from service.loadtest.runner import Send, Tally, closed_loop, open_loop

WARMUP_FIRST_NUMBER: Final = 1_000_000  # so that a warm-up shares no seed with what is measured


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind."""

    card: Mapping[str, Any]
    # Left out of the text of an outcome: asyncio's runner makes one of its task's result, and nobody sees it.
    records: tuple[Record, ...] = field(repr=False)
    most_in_flight: int
    interrupted: bool


async def execute(plan: Plan, watch: Callable[[str, Tally], AbstractContextManager[object]]) -> Outcome:
    """Run the plan; `watch` is given the model's name and the tally that fills. Ctrl-C keeps what was measured.

    Raises:
        LoadTestError: no server, no such model, or every warm-up request failed.

    """
    async with open_session(plan.timeout_seconds, plan.headers) as session:
        card = await find_model(session, plan)
        workload = build(plan, card)

        async def one(number: int, due: float | None, start: float) -> Record:
            return await send(session, plan.url, workload(number), due=due, start=start)

        await _warm_up(one, plan)
        load = _loop(one, plan)
        tally = Tally()
        with watch(card["id"], tally):
            interrupted = await _interrupted(load(tally))
    return Outcome(card, tuple(tally.records), tally.most_in_flight, interrupted)


def _loop(one: Send, plan: Plan) -> Callable[[Tally], Awaitable[None]]:
    if plan.rate is not None:
        due = schedule(plan.rate, plan.seed, requests=plan.requests, seconds=plan.seconds)
        return partial(open_loop, one, due)
    return partial(closed_loop, one, plan.concurrency, requests=plan.requests, seconds=plan.seconds)


async def _warm_up(one: Send, plan: Plan) -> None:
    if not plan.warmup:
        return
    tally = Tally()

    async def numbered(number: int, due: float | None, start: float) -> Record:
        return await one(WARMUP_FIRST_NUMBER + number, due, start)

    await closed_loop(numbered, plan.concurrency, tally, requests=plan.warmup)
    errors = {record.error for record in tally.records}
    if None not in errors:
        causes = ", ".join(sorted(str(error) for error in errors))
        raise LoadTestError(f"All {plan.warmup} warm-up requests failed ({causes}), so nothing was measured.")


async def _interrupted(load: Awaitable[None]) -> bool:
    """Await the load; True where Ctrl-C (the runner cancels its main task) ended it early."""
    try:
        await load
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        return True
    return False
