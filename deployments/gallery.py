"""Answers requests to models that make pictures in steps. What is done is encoded beside the next step."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from time import perf_counter
from typing import TypeVar

from deployments.desk import Desk
from deployments.entry import submit
from deployments.image.painting import Painted, Painting, PaintingRow
from deployments.messages import Decode, Draw, Encode, Interpolate, Output, Picture, Reply, Request, Usage
from deployments.model import FlowModel
from deployments.rows import Ticket, timings

T = TypeVar("T")


class Gallery:
    """For all such models of one process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def pictures(self, model: FlowModel, request: Draw) -> AsyncGenerator[Picture, None]:
        """Pictures as they are ready, previews among them. Closing the generator cancels those that are not."""
        requests, name = model.requests, model.manifest.name
        commission = await self._desk.beside(requests.draw, request)
        ticket, rows = _submit(model, request, commission.works)
        left, spent = len(rows), 0.0
        made = self._made(model, ticket, left, lambda painted: requests.picture(request, commission, painted))
        async with aclosing(made):
            async for picture, seconds in made:
                spent += seconds
                left -= picture.final
                self._desk.metrics.encode_seconds.labels(name).observe(seconds)
                if left:
                    yield picture
                else:
                    usage = Usage(prompt_tokens=commission.tokens, items=len(rows))
                    version = model.manifest.version
                    yield replace(picture, version=version, timings=timings(rows, spent), usage=usage)
        self._desk.metrics.images.labels(name).inc(len(rows))

    async def draw(self, model: FlowModel, request: Draw) -> Reply:
        """All pictures at once."""
        finals: dict[int, Picture] = {}
        source = self.pictures(model, replace(request, previews=0))
        async with aclosing(source):
            async for last in source:
                finals[last.place] = last
        pictures = [finals[place] for place in range(request.n)]
        outputs = tuple(Output(image=each.image, seed=each.seed, steps=each.steps) for each in pictures)
        return Reply(outputs, last.version, last.timings, last.usage)

    async def latents(self, model: FlowModel, request: Encode | Decode | Interpolate) -> Reply:
        """Pictures to latents, latents to pictures, or the pictures between two of either."""
        requests = model.requests
        match request:
            case Encode():
                works = await self._desk.beside(requests.encode, request)
                finish = requests.encoded
            case Decode():
                works = await self._desk.beside(requests.decode, request)
                finish = requests.decoded
            case Interpolate():
                began = perf_counter()
                ends, works = await self._desk.beside(requests.ends, request)
                found = iter(await self._painted(model, request, works) if works else ())
                start, end = (next(found).latent if each is None else each for each in ends)
                request = _later(request, perf_counter() - began)
                works = await self._desk.beside(requests.interpolate, request, start, end)
                finish = requests.decoded
        ticket, rows = _submit(model, request, works)
        outputs, spent = [], 0.0
        made = self._made(model, ticket, len(rows), lambda painted: (painted.place, finish(painted)))
        async with aclosing(made):
            async for output, seconds in made:
                spent += seconds
                outputs.append(output)
        self._desk.metrics.items.labels(model.manifest.name).inc(len(rows))
        ordered = tuple(output for _, output in sorted(outputs, key=lambda each: each[0]))
        return Reply(ordered, model.manifest.version, timings(rows, spent), Usage(items=len(rows)))

    async def _painted(self, model: FlowModel, request: Request, works: Sequence[Painting]) -> list[Painted]:
        ticket, rows = _submit(model, request, works)
        made = self._made(model, ticket, len(rows), lambda painted: painted)
        async with aclosing(made):
            painted = [each async for each, _ in made]
        return sorted(painted, key=lambda each: each.place)

    async def _made(
        self, model: FlowModel, ticket: Ticket[Painted], left: int, make: Callable[[Painted], T]
    ) -> AsyncGenerator[tuple[T, float], None]:
        """What is made of each event, in their order, and the seconds it took: all that have come are being made at once."""

        def timed(painted: Painted) -> tuple[T, float]:
            began = perf_counter()
            return make(painted), perf_counter() - began

        making: deque[asyncio.Future[tuple[T, float]]] = deque()
        try:
            while left or making:
                while left and (ticket.unread or not making):
                    painted = await ticket.next()
                    left -= painted.final
                    making.append(self._desk.beside(timed, painted))
                yield await making.popleft()
        finally:
            for each in making:
                each.cancel()
            self._desk.leave(model.engine, ticket, left + len(making))


def _submit(
    model: FlowModel, request: Request, works: Sequence[Painting]
) -> tuple[Ticket[Painted], list[PaintingRow]]:
    order = (
        {"principal": request.principal, "priority": request.priority} if isinstance(request, Draw) else {}
    )
    return submit(model.engine, request, works, [work.cost for work in works], **order)


def _later(request: Interpolate, seconds: float) -> Interpolate:
    """The same request when so much of its time is gone."""
    if request.timeout_seconds is None:
        return request
    return replace(request, timeout_seconds=max(request.timeout_seconds - seconds, 0.0))
