"""When requests are due. Knows no request: a schedule is seconds from the start, drawn before the first one is sent."""

from collections.abc import Iterator
from itertools import accumulate, islice, repeat, takewhile

import numpy as np


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Endless arrival times of a Poisson process, ascending, in seconds; `rate` is per second."""
    random = np.random.default_rng(seed)
    return accumulate(float(random.exponential(mean)) for mean in repeat(1 / rate))


def schedule(
    rate: float, seed: int, *, requests: int | None = None, seconds: float | None = None
) -> tuple[float, ...]:
    """Arrival times up to whichever bound comes first. Same seed, same times.

    Raises:
        ValueError: there is no bound, so the schedule would have no end.

    """
    if requests is None and seconds is None:
        raise ValueError("a schedule needs a number of requests or a duration")
    due = islice(poisson(rate, seed), requests)
    return tuple(takewhile(lambda time: seconds is None or time < seconds, due))
