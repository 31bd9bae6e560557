"""The one layer around all routes: makes the call, turns every failure into an answer, counts what happened.

Plain ASGI. Knows no route, no dialect's fields and no model client.
"""

import asyncio
import contextlib
import logging
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import Cancelled
from deployments.metrics import Metrics
from service.answers import Document
from service.call import Call
from service.errors import BUG, Problem, problem_of
from service.sse import end

logger = logging.getLogger(__name__)

LEFT: Final = 499
REJECTED: Final = frozenset({413, 415, 429, 503})


class Door:
    """Wraps the router."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        # A lookup by labels costs 1.5 us each time, a dictionary of what it found a tenth of that. Bounded: labels are.
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises nothing but cancellation, and what broke an answer that had started."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = Call(scope, receive, send)
        status = LEFT  # stays where the server cancels us: the client is gone
        try:
            await self._app(scope, receive, call.reply)
            status = call.status
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the outer edge; panics of Rust code are no Exception
            problem = problem_of(error)
            status = problem.status
            await self._fail(call, problem, error)
        finally:
            self._count(call, status)

    async def _fail(self, call: Call, problem: Problem, error: BaseException) -> None:
        if problem is BUG or problem.status == BUG.status:
            logger.error("Request %s failed.", call.id, exc_info=error)
        if problem.status in REJECTED:
            self._metrics.rejected.labels(call.model, problem.code).inc()
        if call.status and not call.streaming:
            raise error  # half an answer was sent: only closing the connection tells the truth
        with contextlib.suppress(Cancelled):  # the client may be gone by now
            if call.status:
                await end(call, b"data: " + problem.body() + b"\n\n")
            else:
                headers = tuple((key.encode(), value.encode()) for key, value in problem.headers.items())
                await Document(problem.body(), status=problem.status, headers=headers).write(call)

    def _count(self, call: Call, status: int) -> None:
        key = (call.model, call.route, status)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = (
                self._metrics.requests.labels(call.model, call.route, str(status)),
                self._metrics.request_seconds.labels(call.model, call.route),
            )
        found[0].inc()
        found[1].observe(call.elapsed())
