"""Between whoever makes a stream and whoever sends it: what waits when the sender is ready goes together.

Knows no route and no event's form.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST: Final = 32


class Drain(Generic[T]):
    """Reads a source ahead, at most `most` items, and hands over all that came since the reader last asked."""

    def __init__(self, source: AsyncGenerator[T, None], most: int = MOST) -> None:
        self._source = source
        self._most = most
        self._waiting: list[T] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def groups(self) -> AsyncGenerator[list[T], None]:
        """Lists of items in order, none empty. Raises what the source raised, after what it gave before."""
        pump = asyncio.create_task(self._pump())
        pump.add_done_callback(lambda _: self._news.set())
        try:
            while self._waiting or not pump.done():
                if self._waiting:
                    group, self._waiting = self._waiting, []
                    self._room.set()
                    yield group
                else:
                    self._news.clear()
                    await self._news.wait()
            pump.result()
        finally:
            pump.cancel()
            await asyncio.wait([pump])
            if not pump.cancelled():
                pump.exception()  # seen: asyncio would report it otherwise

    async def _pump(self) -> None:
        async with aclosing(self._source) as source:
            async for item in source:
                self._waiting.append(item)
                self._news.set()
                while len(self._waiting) >= self._most:
                    self._room.clear()
                    await self._room.wait()
