"""Latency and throughput on this machine: calls that are timed until there are enough of them. Knows no model."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from deployments.evaluation.estimates import Sampling, estimate
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Progress
from model_store.ranking import Weights

_SECONDS: Final = 1.5
_MOST: Final = 2_000
_LEAST: Final = 5


def speed(
    run: Callable[[int], None], batches: Sequence[int], noun: str, where: str, progress: Progress
) -> dict[str, Figure]:
    """Median and p99 of `run(1)`, and `noun` a second at each batch size."""
    figures: dict[str, Figure] = {}
    for batch in batches:
        progress(f"Timing batches of {batch}", 0, 0)
        seconds = timed(run, batch)
        figures |= timings(seconds, batch, noun, where)
    return figures


def timed(run: Callable[[int], None], batch: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds of each call; the first ones, which allocate memory, do not count."""
    run(batch)
    run(batch)
    began, seconds = time.perf_counter(), list[float]()
    while len(seconds) < _LEAST or (len(seconds) < _MOST and time.perf_counter() - began < _SECONDS):
        start = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def timings(
    seconds: np.ndarray[tuple[int], np.dtype[np.float64]], batch: int, noun: str, where: str
) -> dict[str, Figure]:
    """Figures of calls that each made `batch`."""
    sampling = Sampling.of(uuid.uuid4().hex, len(seconds))  # no other run's times are these
    order = np.argsort(seconds)

    def percentile(share: float) -> Callable[[Weights], float]:
        def statistic(weights: Weights) -> float:
            reached = weights[order].cumsum()
            return float(1000 * seconds[order[np.searchsorted(reached, share * reached[-1])]])

        return statistic

    figures = {}
    if batch == 1:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            figures[f"latency_{name}"] = estimate(
                percentile(share),
                sampling,
                better=False,
                unit="ms",
                about=f"{name} of one at a time, {where}",
            )
    figures[f"throughput_{batch}"] = estimate(
        lambda weights: float(batch * weights.sum() / (weights @ seconds)),
        sampling,
        better=True,
        unit=f"{noun}/s",
        about=f"in batches of {batch}, {where}",
    )
    return figures
