"""Ends calls whose time is over or whose client has left. Knows no route.

All open calls are looked at together, every 50 ms: `asyncio.timeout` around each would cost 9 us a request, this 1 us.
"""

import asyncio
from types import TracebackType
from typing import Final

from deployments.errors import Cancelled, DeadlineExceeded, ServingError
from service.call import Call

PERIOD_SECONDS: Final = 0.05


class Watch:
    """The open calls of one application. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._open: set[Watched] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def over(self, call: Call, seconds: float) -> "Watched":
        """A context whose work ends with DeadlineExceeded after `seconds`, or Cancelled when the client leaves.

        The request's body must have been read: from then on the connection is listened to for its end.
        """
        return Watched(self, call, seconds)

    def add(self, watched: "Watched") -> None:
        """Look after this one, too."""
        self._open.add(watched)
        loop = watched.task.get_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(PERIOD_SECONDS, self._look)

    def remove(self, watched: "Watched") -> None:
        """It has ended."""
        self._open.discard(watched)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for watched in self._open:
            watched.look(now)
        # Without open calls the loop is left alone.
        self._loop = loop if self._open else None
        if self._open:
            loop.call_later(PERIOD_SECONDS, self._look)


class Watched:
    """One call's work, ended from outside by cancelling its task."""

    __slots__ = ("_call", "_deadline", "_listener", "_verdict", "_watch", "task")

    def __init__(self, watch: Watch, call: Call, seconds: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is watched from inside its task")
        self.task = task
        self._watch = watch
        self._call = call
        self._deadline = task.get_loop().time() + seconds
        self._listener: asyncio.Task[None] | None = None
        self._verdict: ServingError | None = None

    def __enter__(self) -> None:
        self._watch.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.remove(self)
        if self._listener is not None:
            self._listener.cancel()
        # Whoever else cancelled the task (the server that stops) is to see it cancelled.
        if self._verdict is not None and not self.task.uncancel() and kind is asyncio.CancelledError:
            raise self._verdict from None

    def look(self, now: float) -> None:
        """Start to listen for the client's end; pass the verdict when the time is over."""
        if now >= self._deadline:
            self._end(DeadlineExceeded("The request's time limit passed."))
        elif self._listener is None:
            self._listener = self.task.get_loop().create_task(self._listen())

    async def _listen(self) -> None:
        message = await self._call.receive()
        if message["type"] == "http.request":  # of a GET, whose body nobody read
            message = await self._call.receive()
        if message["type"] == "http.disconnect":
            self._end(Cancelled("The client left."))

    def _end(self, verdict: ServingError) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self.task.cancel()
