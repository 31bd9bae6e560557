"""Requests of many items to a studio, some at a time, as a client sends them; and how fast they are answered."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

from deployments.errors import BadRequest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Progress
from deployments.evaluation.speed import timings
from deployments.messages import Output, Request
from deployments.studio import Studio

T = TypeVar("T")

TOGETHER: Final = 256
_LEAST, _MOST, _SECONDS = 5, 2_000, 1.5
_PLACE: Final = re.compile(r"input\[(\d+)\]")


async def called(
    studio: Studio,
    items: Sequence[T],
    ask: Callable[[tuple[T, ...]], Request],
    doing: str,
    progress: Progress,
) -> list[Output]:
    """Each item's answer. Raises EvaluationError naming the item that is refused."""
    outputs: list[Output] = []
    for first in range(0, len(items), TOGETHER):
        try:
            reply = await studio.call(ask(tuple(items[first : first + TOGETHER])))
        except BadRequest as error:
            place = _PLACE.sub(lambda found: f"item {int(found[1]) + first}", error.param or "")  # noqa: B023
            raise EvaluationError(f"the model refuses the data: {error} ({place})") from error
        outputs += reply.outputs
        progress(doing, len(outputs), len(items))
    return outputs


async def call_speed(
    studio: Studio, requests: Mapping[int, Request], noun: str, progress: Progress
) -> dict[str, Figure]:
    """Time of requests by how many `noun` they are of, one after the other."""
    figures: dict[str, Figure] = {}
    for batch, request in requests.items():
        progress(f"Timing {batch} at once", 0, 0)
        await studio.call(request)
        seconds = list[float]()
        while len(seconds) < _LEAST or (len(seconds) < _MOST and sum(seconds) < _SECONDS):
            began = time.perf_counter()
            await studio.call(request)
            seconds.append(time.perf_counter() - began)
        figures |= timings(np.array(seconds), batch, noun, "in the engine, without HTTP")
    return figures
