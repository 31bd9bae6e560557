"""What answering any request needs: threads for what takes long, and the end of a wait. Knows no request and no model."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from deployments.engine import Engine
from deployments.metrics import Metrics
from deployments.rows import Ticket

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 2


class Desk:
    """One process's."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="codec")

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()

    def beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run what may take long on a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))

    async def gather(
        self, engine: Engine[Any, tuple[int, T]], ticket: Ticket[tuple[int, T]], count: int
    ) -> list[T]:
        """What comes of a request's rows, in their own order."""
        answers: dict[int, T] = {}
        try:
            while len(answers) < count:
                place, answer = await ticket.next()
                answers[place] = answer
        finally:
            self.leave(engine, ticket, count - len(answers))
        return [answers[place] for place in range(count)]

    def leave(self, engine: Engine[Any, T], ticket: Ticket[T], missing: int) -> None:
        """Nobody waits any more; so many of the answers are not taken."""
        if not missing:
            ticket.close()
            return
        if ticket.failure is None:
            self.metrics.cancelled.labels(engine.name).inc()
        engine.cancel(ticket)
