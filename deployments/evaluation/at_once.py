"""Several requests at once, as a server would get them. Knows none of them."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from deployments.evaluation.shown import Progress

T = TypeVar("T")


async def gathered(
    works: Iterable[Coroutine[Any, Any, T]], count: int, most: int, doing: str, progress: Progress
) -> list[T]:
    """Results in order, at most `most` at once."""
    places, done = asyncio.Semaphore(most), 0

    async def one(work: Coroutine[Any, Any, T]) -> T:
        nonlocal done
        async with places:
            result = await work
        done += 1
        progress(doing, done, count)
        return result

    return await asyncio.gather(*map(one, works))
