"""Every model of one process behind the `ModelClient` seam: the local implementation. Knows no Ray and no HTTP."""

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final

from deployments.answering import answer, run
from deployments.config import HostConfig
from deployments.desk import Desk
from deployments.effort import SMALL_TEXT, is_heavy
from deployments.entry import submit
from deployments.errors import BadRequest, ModelNotFound
from deployments.exploring import Explorer
from deployments.gallery import Gallery
from deployments.image.draw import Drawing
from deployments.image.edit import Editing
from deployments.messages import (
    Calibrate,
    Calibrations,
    Card,
    Classify,
    Complete,
    Decode,
    Detokenize,
    Draw,
    Embed,
    Encode,
    Exposition,
    Interpolate,
    Picture,
    Reconstruct,
    Reply,
    Request,
    Score,
    TextDelta,
    Tokenize,
    Usage,
)
from deployments.messages.latents import Combine, Compress, Decompress, Traverse
from deployments.metrics import Metrics
from deployments.model import (
    EncoderModel,
    FlowModel,
    Model,
    OneShotModel,
    TextModel,
    cards_of,
    open_model,
    updated,
)
from deployments.oneshot import Task
from deployments.reconstruction.embeddings import embedded, encoding_of
from deployments.reconstruction.items import Program
from deployments.rows import timings
from deployments.scoring import Scorer
from deployments.text.encoder import texts_of
from deployments.words import detokenize, tokenize
from deployments.writing import Writer
from model_store.manifest import Capability
from model_store.session import choose_device
from model_store.store import Store, shipped

# A step that takes longer than this has hung.
_STUCK_SECONDS: Final = 60.0
# A model that fails this often in a row will not recover by itself: a lost device, for example.
_FAULTS: Final = 3
_CARDS_SECONDS: Final = 1.0

_LATENTS: Final[dict[type, Capability]] = {Encode: "encode", Decode: "decode", Interpolate: "interpolate"}


class Studio:
    """Loaded models by name, each with its engine running; `model:adapter` names a model as well."""

    def __init__(self, models: Iterable[Model], metrics: Metrics, host: str = "") -> None:
        self._models = {model.manifest.name: model for model in models}
        self._metrics = metrics
        self._cards = tuple(card for model in self._models.values() for card in cards_of(model, host))
        self._names = {card.name: card.parent or card.name for card in self._cards}
        self._looked = -_CARDS_SECONDS
        self._desk = Desk(metrics)
        self._writer = Writer(self._desk)
        self._gallery = Gallery(self._desk)
        self._scorer = Scorer(self._desk)
        self._explorer = Explorer(self._desk, self.call)
        for model in self._models.values():
            model.engine.start()

    def close(self) -> None:
        """Finish what was accepted and end all threads."""
        for model in self._models.values():
            model.engine.stop()
        self._desk.close()

    # -- the seam ----------------------------------------------------------------------------------------------------

    async def cards(self) -> tuple[Card, ...]:
        """Cards of all models; the same ones until something changes, which is looked for once a second."""
        now = time.monotonic()
        if now >= self._looked + _CARDS_SECONDS:
            self._looked = now
            cards = tuple(updated(card, self._models[self._names[card.name]]) for card in self._cards)
            if cards != self._cards:
                self._cards = cards
        return self._cards

    async def expositions(self) -> tuple[Exposition, ...]:
        """Nothing: this process's own registry is shown by its own door."""
        return ()

    async def ready(self) -> bool:
        """Whether every engine runs and none hangs in a step."""
        return self.healthy()

    def healthy(self) -> bool:
        """The same, for a health check."""
        engines = [model.engine for model in self._models.values()]
        return all(
            engine.alive and engine.faults < _FAULTS and engine.stuck_seconds() < _STUCK_SECONDS
            for engine in engines
        )

    async def stream(self, request: Complete) -> AsyncGenerator[TextDelta, None]:
        """Continue text, delta by delta."""
        source = self._writer.stream(self._text(request), request)
        async with aclosing(source):
            async for delta in source:
                yield delta

    async def collect(self, request: Complete) -> tuple[TextDelta, ...]:
        """Continue text, one delta a row."""
        return await self._writer.collect(self._text(request), request)

    async def call(self, request: Request) -> Reply:
        """Answer a one-shot request."""
        match request:
            case Score() | Calibrate() | Calibrations():
                reply = await self._scored(request)
            case Reconstruct():
                model, auto = self._autoencoding(request, "reconstruct")
                reply = await answer(self._desk, model, request, auto.reconstruct, auto.reconstructed)
            case Encode() | Decode() | Interpolate():
                reply = await self._latents(request)
            case Traverse() | Combine() | Compress() | Decompress():
                reply = await self._explorer.answer(request, self._find(request, "decode"))
            case Draw():
                reply = await self._draw(request)
            case Embed():
                reply = await self._read(request, "embed")
            case Classify():
                reply = await self._read(request, "classify")
            case Tokenize() | Detokenize():
                reply = await self._translate(request)
            case Complete():
                raise TypeError("text is collected or streamed")
        return reply

    async def pictures(self, request: Draw) -> AsyncGenerator[Picture, None]:
        """Draw, picture by picture. A model that draws in one step has no previews, and all pictures at once."""
        model = self._find(request, _drawing(request))
        if isinstance(model, FlowModel):
            source = self._gallery.pictures(model, request)
            async with aclosing(source):
                async for picture in source:
                    yield picture
            return
        reply = await self._draw(request)
        for place, output in enumerate(reply.outputs):
            picture = Picture(place, output.image or b"", output.seed or 0)
            if place + 1 < len(reply.outputs):
                yield picture
            else:
                yield replace(picture, version=reply.version, timings=reply.timings, usage=reply.usage)

    # -- one-shot ----------------------------------------------------------------------------------------------------

    async def _scored(self, request: Score | Calibrate | Calibrations) -> Reply:
        model, program = self._autoencoding(request, "score")
        if model.scores is None:
            raise _cannot(model, "score")
        match request:
            case Score():
                return await self._scorer.score(model, model.scores, program, request)
            case Calibrate():
                return await self._scorer.calibrate(model, model.scores, program, request)
        return await self._scorer.keep(model, model.scores, request)

    async def _latents(self, request: Encode | Decode | Interpolate) -> Reply:
        capability = _LATENTS[type(request)]
        model = self._find(request, capability)
        if isinstance(model, FlowModel):
            return await self._gallery.latents(model, request)
        model, auto = self._autoencoding(request, capability)
        if request.prompt:
            raise BadRequest("This model's latents are of no prompt: leave it empty.", param="prompt")
        match request:
            case Encode():
                return await answer(self._desk, model, request, auto.encode, auto.encoded)
            case Decode():
                return await answer(self._desk, model, request, auto.decode, auto.decoded)
        return await self._interpolate(request)

    async def _draw(self, request: Draw) -> Reply:
        capability = _drawing(request)
        model = self._find(request, capability)
        if isinstance(model, FlowModel):
            return await self._gallery.draw(model, request)
        if not isinstance(model, OneShotModel):
            raise _cannot(model, capability)
        drawing: Drawing | Editing | None = model.editing if request.source else model.drawing
        if drawing is None:
            raise _cannot(model, capability)
        reply = await answer(self._desk, model, request, drawing.prepare, drawing.finish)
        self._metrics.images.labels(request.model).inc(request.n)
        return reply

    async def _interpolate(self, request: Interpolate) -> Reply:
        model, auto = self._autoencoding(request, "interpolate")
        began = time.perf_counter()
        heavy = is_heavy(model, request)
        ends = await self._desk.beside(auto.ends, request) if heavy else auto.ends(request)
        tasks = [end for end in ends if isinstance(end, Task)]
        found, _ = await run(self._desk, model, request, tasks) if tasks else ([], [])
        start, end = (found[end.place]["latent"] if isinstance(end, Task) else end for end in ends)
        if request.timeout_seconds is not None:
            left = request.timeout_seconds - (time.perf_counter() - began)
            request = replace(request, timeout_seconds=max(left, 0.0))
        return await answer(
            self._desk, model, request, lambda r: auto.interpolate(r, start, end), auto.decoded
        )

    async def _read(self, request: Embed | Classify, capability: Capability) -> Reply:
        model = self._find(request, capability)
        if isinstance(model, OneShotModel) and isinstance(request, Embed):
            return await self._embed(request)
        if not isinstance(model, EncoderModel):
            raise _cannot(model, capability)
        encoding, name = model.encoding, model.manifest.name
        small = sum(map(len, texts_of(request))) <= SMALL_TEXT
        works = encoding.prepare(request) if small else await self._desk.beside(encoding.prepare, request)
        costs = [work.cost for work in works]
        ticket, rows = submit(
            model.engine, request, works, costs, principal=request.principal, priority=request.priority
        )
        answers = await self._desk.gather(model.engine, ticket, len(rows))
        outputs = (
            encoding.embedded(request, answers)
            if isinstance(request, Embed)
            else encoding.classified(request, answers)
        )
        self._metrics.items.labels(name).inc(len(rows))
        usage = Usage(prompt_tokens=sum(costs), items=len(rows))
        return Reply(outputs, model.manifest.version, timings(rows), usage)

    async def _embed(self, request: Embed) -> Reply:
        """Items by their latents."""
        model, program = self._autoencoding(request, "embed")
        reply = await answer(self._desk, model, encoding_of(request), program.encode, program.encoded)
        return replace(reply, outputs=tuple(embedded(each, request.dimensions) for each in reply.outputs))

    async def _translate(self, request: Tokenize | Detokenize) -> Reply:
        model = self._named(request)
        if isinstance(model, OneShotModel | FlowModel):
            raise BadRequest("This model has no tokenizer.", code="task_not_supported", param="model")
        if isinstance(request, Detokenize):
            output = await self._desk.beside(detokenize, model, request)
            tokens = len(request.tokens)
        else:
            output = await self._desk.beside(tokenize, model, request)
            tokens = len(output.token_ids or ())
        return Reply((output,), model.manifest.version, usage=Usage(prompt_tokens=tokens))

    # -- lookup ------------------------------------------------------------------------------------------------------

    def _named(self, request: Request) -> Model:
        model = self._models.get(self._names.get(request.model, ""))
        if model is None or request.version not in (None, model.manifest.version):
            raise ModelNotFound("There is no such model or version here.", param="model")
        return model

    def _find(self, request: Request, capability: Capability) -> Model:
        model = self._named(request)
        if capability not in model.manifest.capabilities:
            raise _cannot(model, capability)
        return model

    def _text(self, request: Complete) -> TextModel:
        model = self._find(request, "complete")
        if not isinstance(model, TextModel):
            raise _cannot(model, "complete")
        return model

    def _autoencoding(self, request: Request, capability: Capability) -> tuple[OneShotModel, Program]:
        model = self._find(request, capability)
        program = model.program() if isinstance(model, OneShotModel) else None
        if not isinstance(model, OneShotModel) or program is None:
            raise _cannot(model, capability)
        return model, program


def open_studio(config: HostConfig, metrics: Metrics) -> Studio:
    """Verify and load the packages a host is configured for. Raises PackageError."""
    store = Store(config.store or str(shipped()), Path(config.cache) if config.cache else None)
    device = choose_device(config.device)
    packages = [store.open(name, version) for name, version in config.selected(store.names()).items()]
    models = [open_model(package, config, device, metrics) for package in packages]
    return Studio(models, metrics, config.name)


def _drawing(request: Draw) -> Capability:
    return "edit_image" if request.source else "generate_image"


def _cannot(model: Model, capability: Capability) -> BadRequest:
    """What the manifest does not claim, or claims without the graph for it."""
    can = ", ".join(model.manifest.capabilities)
    return BadRequest(
        f"This model cannot {capability.replace('_', ' ')}; it can {can}.",
        code="task_not_supported",
        param="model",
    )
