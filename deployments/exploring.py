"""What is asked of latents beside encoding and decoding them, by way of those two: so of every model that does both."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Final, TypeAlias

import numpy as np

from deployments.compression import MOST, pack, unpack
from deployments.desk import Desk
from deployments.errors import BadRequest, ModelFault
from deployments.latent_space import LatentSpace
from deployments.messages import Array as Sent
from deployments.messages import Decode, Encode, Item, Numbers, Output, Reply, Request, Timings, Usage
from deployments.messages.latents import Combine, Compress, LatentRequest, Traverse
from deployments.model import FlowModel, Model, OneShotModel
from deployments.pictures.budget import compared
from model_store.session import Array

Call: TypeAlias = Callable[[Request], Awaitable[Reply]]

# Of all pictures that are compressed together. WebP tries up to eight qualities, 0.4 s each where pixels are noise.
_MOST_PIXELS: Final = 1 << 20
_ROW: Final = re.compile(r"(?:input|latents)(?:\[(\d+)\](.*))?")


class Explorer:
    """For all models of one process."""

    def __init__(self, desk: Desk, call: Call) -> None:
        """`call` answers `Encode` and `Decode`."""
        self._desk = desk
        self._call = call

    async def answer(self, request: LatentRequest, model: Model) -> Reply:
        """Raises BadRequest."""
        space = model.space if isinstance(model, OneShotModel | FlowModel) else None
        if space is None:
            raise BadRequest("This model decodes no latents.", code="task_not_supported", param="model")
        errand = _Errand(request, self._call)
        match request:
            case Traverse():
                return await self._traverse(errand, request, space)
            case Combine():
                return await self._combine(errand, request, space)
            case Compress():
                return await self._compress(errand, request, space)
        latents = await self._desk.beside(unpack, request.data, space.size, space.ranges, space.key)
        return await errand.decode(latents, ["latents"] * len(latents))

    async def _traverse(self, errand: "_Errand", request: Traverse, space: LatentSpace) -> Reply:
        places = space.places(request.axis, request.low, request.high, request.steps, request.unit)
        (start,) = await self._latents(errand, [(request.start, "from")], space)
        latents = np.repeat(start[None], len(places), axis=0)
        latents[:, request.axis] = places
        reply = await errand.decode(latents, ["range"] * len(places))
        outputs = zip(reply.outputs, latents[:, request.axis].tolist(), strict=True)
        return replace(reply, outputs=tuple(replace(output, value=value) for output, value in outputs))

    async def _combine(self, errand: "_Errand", request: Combine, space: LatentSpace) -> Reply:
        members = [
            (member, f"groups[{place}].input[{i}]")
            for place, group in enumerate(request.groups)
            for i, member in enumerate(group.members)
        ]
        found = await self._latents(errand, members, space)
        weights = [group.weight / len(group.members) for group in request.groups for _ in group.members]
        with np.errstate(over="ignore", invalid="ignore"):
            mixed = (np.asarray(weights) @ np.asarray(found, np.float64)).astype(np.float32)
        if not np.isfinite(mixed).all():
            raise BadRequest("The sum is not finite in float32.", code="not_finite", param="groups")
        reply = await errand.decode(mixed[None], ["groups"])
        return replace(reply, outputs=(replace(reply.outputs[0], latent=_sent(mixed)),))

    async def _compress(self, errand: "_Errand", request: Compress, space: LatentSpace) -> Reply:
        items, count = space.items, len(request.items)
        if items is None:
            raise BadRequest(
                "Only latents of pictures of one size are compressed.",
                code="task_not_supported",
                param="model",
            )
        if count > MOST or count * items.numbers > _MOST_PIXELS * items.shape[0]:
            raise BadRequest(
                f"At most {MOST} pictures, of {_MOST_PIXELS} pixels in all, are compressed at once.",
                code="too_many_rows",
                param="input",
            )
        params = [f"input[{place}]" for place in range(count)]
        encoded = await errand.encode(request.items, params)
        latents = np.stack([_latent(output) for output in encoded])
        data = await self._desk.beside(pack, latents, space.ranges, space.key)
        latents = await self._desk.beside(unpack, data, space.size, space.ranges, space.key)
        reply = await errand.decode(latents, params)
        pictures = await self._desk.beside(
            lambda: [items.read(*each) for each in zip(request.items, params, strict=True)]
        )
        made = [output.image or b"" for output in reply.outputs]
        compression, ratios = await self._desk.beside(compared, pictures, made, data)
        outputs = tuple(
            replace(output, latent=_sent(latent), psnr=ratio)
            for output, latent, ratio in zip(encoded, latents, ratios, strict=True)
        )
        return replace(reply, outputs=outputs, compression=compression)

    async def _latents(
        self, errand: "_Errand", sent: Sequence[tuple[Item | Numbers, str]], space: LatentSpace
    ) -> list[Array]:
        """Latents as they were sent, and those of items; each has its place in the request."""
        given = [(numbers, param) for numbers, param in sent if isinstance(numbers, list | bytes)]
        items = [(item, param) for item, param in sent if not isinstance(item, list | bytes)]
        vectors = iter(await self._desk.beside(space.vectors, given))
        encoded = await errand.encode([item for item, _ in items], [param for _, param in items])
        found = (_latent(output) for output in encoded)
        return [next(vectors if isinstance(each, list | bytes) else found) for each, _ in sent]


class _Errand:
    """One request's calls, in what is left of its time. Refusals name its own fields; each answer tells of all work so far."""

    def __init__(self, request: LatentRequest, call: Call) -> None:
        self._request, self._call = request, call
        self._began = perf_counter()
        self._timings, self._items = Timings(), 0

    async def encode(self, items: Sequence[Item], params: Sequence[str]) -> tuple[Output, ...]:
        """Each item's latent; `params` are their places in the request."""
        if not items:
            return ()
        return (await self._ask(Encode(items=tuple(items), **self._shared()), params)).outputs

    async def decode(self, latents: Array, params: Sequence[str]) -> Reply:
        """What each of [count, size] shows; `params` say where in the request it comes from."""
        rows = tuple(latent.astype("<f4").tobytes() for latent in latents)
        return await self._ask(Decode(latents=rows, **self._shared()), params)

    def _shared(self) -> dict[str, Any]:
        """What a call has in common with the request."""
        request, left = self._request, self._request.timeout_seconds
        if left is not None:
            left = max(left - (perf_counter() - self._began), 0.0)
        return {
            "model": request.model,
            "version": request.version,
            "prompt": request.prompt,
            "request_id": request.request_id,
            "timeout_seconds": left,
        }

    async def _ask(self, request: Encode | Decode, params: Sequence[str]) -> Reply:
        try:
            reply = await self._call(request)
        except BadRequest as error:
            error.param = _renamed(error.param or "", params) or None
            raise
        past, own = self._timings, reply.timings
        self._timings = replace(
            own, queue=past.queue + own.queue, model=past.model + own.model, encode=past.encode + own.encode
        )
        self._items += reply.usage.items
        return replace(reply, timings=self._timings, usage=Usage(items=self._items))


def _renamed(param: str, params: Sequence[str]) -> str:
    """A place in what is encoded or decoded, as a place in the request. Where all of it is meant, the request's field."""
    row = _ROW.fullmatch(param)
    if row is None:
        return param
    return params[int(row[1])] + row[2] if row[1] else params[0].partition("[")[0]


def _latent(output: Output) -> Array:
    if output.latent is None:
        raise ModelFault("The model made no latent.")
    return np.frombuffer(output.latent.data, "<f4")


def _sent(latent: Array) -> Sent:
    return Sent(latent.shape, latent.astype("<f4").tobytes())
