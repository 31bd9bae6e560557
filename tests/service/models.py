"""A small, deterministic model client: a real collaborator for tests of the door, with no engine behind it."""

import asyncio
import struct
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.messages import (
    Alarm,
    Array,
    Calibrate,
    Calibration,
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
    ImageItem,
    Imputed,
    Interpolate,
    Item,
    Output,
    Picture,
    Reconstruct,
    Reply,
    Request,
    RowItem,
    Score,
    SeriesItem,
    TextDelta,
    Timings,
    Tokenize,
    Usage,
)
from deployments.messages.latents import (
    Combine,
    Compress,
    Compression,
    File,
    LatentRequest,
    Traverse,
)
from tests.service.text_models import CONTEXT, deltas, text_outputs, text_usage, usage_of

PNG = b"\x89PNG\r\n\x1a\n" + b"a picture"
COMPRESSION = Compression(b"few", 0.5, 30.0, File(200, None, fits=False), File(3, 20.0, fits=True))
TIMINGS = Timings(queue=0.001, model=0.002, encode=0.003, batch=2.0)


def card(name: str, task: str, family: str, *capabilities: str, **limits: Any) -> Card:
    return Card(
        name=name,
        version="3",
        created=1_700_000_000,
        task=task,
        family=family,
        capabilities=capabilities,
        description=f"A small {family}.",
        licence="MIT",
        limits={"context": CONTEXT, **limits},
        quality={"loss": {"value": 1.5, "higher_is_better": False, "data": "held-out"}},
        host="studio",
    )


CARDS = (
    card("poet", "text-generation", "transformer", "complete"),
    replace(card("poet:haiku", "text-generation", "transformer", "complete"), parent="poet"),
    replace(card("poet:ode", "text-generation", "transformer", "complete"), parent="poet"),
    card("talker", "text-generation", "transformer", "complete", "chat", chat=True, tools=None),
    card("hermes", "text-generation", "transformer", "complete", "chat", chat=True, tools="hermes"),
    card("llama", "text-generation", "transformer", "complete", "chat", chat=True, tools="llama3"),
    card("mistral", "text-generation", "transformer", "complete", "chat", chat=True, tools="mistral"),
    card("reader", "feature-extraction", "transformer", "embed"),
    card("critic", "text-classification", "transformer", "classify"),
    card("painter", "image-generation", "gan", "generate_image"),
    card("retoucher", "image-generation", "flow", "edit_image"),
    card("mirror", "reconstruction", "vae", "reconstruct", "score", "encode", "decode", "interpolate"),
)


@dataclass
class Models:
    """A `ModelClient` of arithmetic: text counts upwards, a reconstruction halves, a score is the mean.

    `seen` keeps the messages; a test sets `failure` to have the next call fail, after `fails_after` deltas if it streams,
    and `says` to have every row say these pieces.
    """

    seen: list[Request] = field(default_factory=list)
    failure: BaseException | None = None
    fails_after: int = 0
    delay_seconds: float = 0.0
    is_ready: bool = True
    others: tuple[Exposition, ...] = ()
    answer: Output | None = None  # instead of what it would compute
    says: tuple[str, ...] | None = None
    open_streams: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def cards(self) -> tuple[Card, ...]:
        return CARDS

    async def expositions(self) -> tuple[Exposition, ...]:
        return self.others

    async def ready(self) -> bool:
        await asyncio.sleep(self.delay_seconds)
        return self.is_ready

    async def call(self, request: Request) -> Reply:
        self.seen.append(request)
        try:
            await asyncio.sleep(self.delay_seconds)
        finally:
            self.closed.set()
        self._fail()
        if isinstance(request, Tokenize | Detokenize | Embed | Classify):
            return Reply(tuple(text_outputs(request)), "3", TIMINGS, text_usage(request))
        if isinstance(request, Calibrate):
            return Reply((), "3", TIMINGS, Usage(items=len(request.items)), calibrations=(made(request),))
        if isinstance(request, Calibrations):
            return Reply(
                (), "3", calibrations=(OWN, replace(OWN, id=request.id or "mirror:3:ab", default=False))
            )
        if self.answer is not None:
            outputs = [self.answer]
        else:
            outputs = _explored(request) if isinstance(request, LatentRequest) else _outputs(request)
        reply = Reply(tuple(outputs), "3", TIMINGS, Usage(items=len(outputs)))
        if isinstance(request, Score):
            return replace(reply, score="mean", calibration="mirror:3", method="quantile")
        return replace(reply, compression=COMPRESSION if isinstance(request, Compress) else None)

    async def stream(self, request: Complete) -> AsyncGenerator[TextDelta, None]:
        self.seen.append(request)
        self.open_streams += 1
        rows = len(request.prompts) * request.n
        try:
            for count, delta in enumerate(deltas(request, self.says)):
                if count == self.fails_after:
                    self._fail()
                await asyncio.sleep(self.delay_seconds)
                last = delta.row == rows - 1 and delta.finish is not None
                yield self._finished(request, delta) if last else delta
        finally:
            self.open_streams -= 1
            self.closed.set()

    async def collect(self, request: Complete) -> tuple[TextDelta, ...]:
        rows: dict[int, TextDelta] = {}
        async for delta in self.stream(request):
            past = rows.get(delta.row, TextDelta(delta.row, ""))
            rows[delta.row] = replace(
                delta, text=past.text + delta.text, logprobs=past.logprobs + delta.logprobs
            )
        return tuple(rows[row] for row in sorted(rows))

    async def pictures(self, request: Draw) -> AsyncGenerator[Picture, None]:
        """Each in two steps; a preview after the first where previews are wanted."""
        self.seen.append(request)
        self.open_streams += 1
        try:
            for place in range(request.n):
                self._fail()
                if request.previews:
                    yield Picture(place, PNG + b"?", request.seed + place, 1, 2, final=False)
                await asyncio.sleep(self.delay_seconds)
                usage = Usage(prompt_tokens=3 if place + 1 == request.n else 0)
                yield Picture(place, PNG + bytes([place]), request.seed + place, 2, 2, usage=usage)
        finally:
            self.open_streams -= 1
            self.closed.set()

    def _finished(self, request: Complete, delta: TextDelta) -> TextDelta:
        said = None if self.says is None else len(self.says)
        return replace(delta, usage=usage_of(request, said), timings=TIMINGS, version="3")

    @property
    def completed(self) -> Complete:
        """The last message, of text to continue."""
        request = self.seen[-1]
        assert isinstance(request, Complete)
        return request

    def _fail(self) -> None:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure


OWN = Calibration(
    id="mirror:3",
    model="mirror",
    version="3",
    score="mean",
    method="quantile",
    level=0.99,
    threshold=0.5,
    items=100,
    anomalies=0,
    f1=None,
    created=1_700_000_000,
    default=True,
)


def made(request: Calibrate) -> Calibration:
    """One whose threshold is the first item's first value."""
    labels = request.labels or ()
    return replace(
        OWN,
        id="mirror:3:ab",
        score=request.score or OWN.score,
        method=request.method,
        level=request.level,
        threshold=_values(request.items[0])[0],
        items=len(request.items) - sum(labels),
        anomalies=sum(labels),
        default=request.default,
    )


def _array(values: list[float]) -> Array:
    return Array((len(values),), struct.pack(f"<{len(values)}f", *values))


def _values(item: Item) -> list[float]:
    if isinstance(item, RowItem):
        return [float(value or 0) for value in item.features.values()]
    if isinstance(item, SeriesItem):
        return [float(value) for value in item.values]
    if isinstance(item, ImageItem):
        return [zlib.crc32(item.data) % 7, 1.0]
    if isinstance(item.data, bytes):
        return list(struct.unpack(f"<{len(item.data) // 4}f", item.data))
    return [float(value) for value in item.data]


def _outputs(request: Request) -> list[Output]:
    match request:
        case Draw():
            return [Output(image=PNG + bytes([i]), seed=request.seed + i) for i in range(request.n)]
        case Decode():
            return [Output(array=_array(list(latent))) for latent in request.latents]
        case Interpolate():
            return [Output(array=_array([float(i)])) for i in range(request.steps)]
        case Encode():
            return [Output(latent=_array(_values(i)), spread=_array([1.0])) for i in request.items]
        case Reconstruct():
            return [_reconstruction(request, item) for item in request.items]
        case Score():
            return [_score(request, item) for item in request.items]
    raise TypeError(type(request).__name__)


def _explored(request: LatentRequest) -> list[Output]:
    match request:
        case Traverse():
            ways = [(request.low, 0), (request.high, 1)]
            return [Output(array=_array([float(i)]), value=value) for value, i in ways]
        case Combine():
            weights = [group.weight for group in request.groups]
            return [Output(array=_array([0.5]), latent=_array(weights))]
        case Compress():
            return [Output(latent=_array(_values(i)), psnr=None) for i in request.items]
    return [Output(array=_array([float(byte) for byte in request.data]))]


def _reconstruction(request: Reconstruct, item: Item) -> Output:
    half = [value / 2 for value in _values(item)]
    picture = isinstance(item, ImageItem)
    if isinstance(item, RowItem):
        filled = {name: Imputed(0.5, 0.25) for name, value in item.features.items() if value is None}
        return Output(
            features=dict(zip(item.features, half, strict=True)), imputed=filled or None, error=0.25
        )
    return Output(
        image=PNG if picture else None,
        array=None if picture else _array(half),
        error=0.25,
        error_map=PNG if request.error_map else None,
        latent=_array(half) if request.latent else None,
    )


def _score(request: Score, item: Item) -> Output:
    values = _values(item)
    score = sum(values) / len(values)
    threshold = 0.5 if request.threshold is None else request.threshold
    return Output(
        score=score,
        normalized=score / (score + threshold) if score + threshold else 0.0,
        p_value=0.25,
        threshold=threshold,
        is_anomaly=score > threshold,
        adjusted_p_value=None if request.false_discovery_rate is None else 0.5,
        map=(_array(values) if request.map_numbers else PNG) if request.map else None,
        mask=PNG if request.mask else None,
        contributions={"a": 1.0} if request.contributions else None,
        step_scores=tuple(values) if request.steps else None,
        alarms=_alarms(item) if isinstance(item, SeriesItem) else None,
        session=f"{item.session}+" if isinstance(item, SeriesItem) and item.session is not None else None,
    )


def _alarms(item: SeriesItem) -> tuple[Alarm, ...]:
    began = item.timestamps[0] if item.timestamps else None
    return (Alarm(0, len(item.values) - 1, 1.0, open=True, began=began),)
