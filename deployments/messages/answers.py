"""What comes back, but text: outputs, replies, and what models and processes tell of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.messages.latents import Compression


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a request spent: waiting for a place, in model steps, encoding its answer."""

    queue: float = 0.0
    model: float = 0.0
    encode: float = 0.0
    batch: float = 1.0  # mean number of rows in the steps it took part in
    first: float | None = None  # from submission to the first token


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request consumed and produced."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, those whose state was there already
    items: int = 0


@dataclass(frozen=True, slots=True)
class Array:
    """A float32 tensor on its way out: raw little-endian bytes, row-major."""

    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Imputed:
    """What a missing value is filled in with.

    `spread`: of a number the standard deviation, of a category the probability that it is another one.
    """

    value: float | str
    spread: float | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """Steps that belong together, from the first to the last one, both included, counted from the series' beginning.

    `open`: it has not ended. `began`, `ended`: the timestamps of these steps, where they were sent in this request.
    """

    start: int
    end: int
    peak: float  # the highest score
    open: bool
    began: float | str | None = None
    ended: float | str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One item's answer. A field is None where it was not asked for or the model has no such thing.

    Pictures are encoded bytes; `mask`, `error_map` and, unless it is of numbers, `map` are PNG.
    """

    image: bytes | None = None
    array: Array | None = None
    error: float | None = None
    error_map: bytes | None = None
    latent: Array | None = None
    spread: Array | None = None
    value: float | None = None  # of the axis that a traversal moves
    psnr: float | None = None  # dB, of what a compressed latent shows; None: nothing differs
    score: float | None = None
    normalized: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    adjusted_p_value: float | None = None
    is_anomaly: bool | None = None
    map: bytes | Array | None = None
    mask: bytes | None = None
    seed: int | None = None
    steps: int = 1  # of the model that a picture took
    # Of table rows: every feature, and those filled in; shares of the error, together 1.
    features: Mapping[str, float | str] | None = None
    imputed: Mapping[str, Imputed] | None = None
    contributions: Mapping[str, float] | None = None
    # Of series: the first step in this answer, and all steps' scores.
    start: int = 0
    step_scores: tuple[float, ...] | None = None
    alarms: tuple[Alarm, ...] | None = None
    session: str | None = None
    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    token_bytes: tuple[bytes, ...] | None = None
    classes: tuple[tuple[str, float], ...] | None = None  # probabilities, highest first


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a `Draw`: what is foretold of it after `step` of its `steps`, or the picture itself."""

    place: int  # among the request's pictures
    image: bytes  # encoded
    seed: int
    step: int = 1
    steps: int = 1
    final: bool = True
    # In a request's last one:
    version: str = ""
    timings: Timings = Timings()
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Calibration:
    """How one score's threshold was set: from so many normal items and anomalies, by a method and its level."""

    id: str
    model: str
    version: str
    score: str
    method: str
    level: float | None
    threshold: float
    items: int
    anomalies: int
    f1: float | None  # of the items it was made of
    created: int  # seconds since 1970
    default: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a one-shot request: one output for each item, latent, step or picture, in order."""

    outputs: tuple[Output, ...]
    version: str
    timings: Timings = Timings()
    usage: Usage = Usage()
    # Of scores: which, by what calibration, and what set the threshold.
    score: str | None = None
    calibration: str | None = None
    method: str | None = None
    calibrations: tuple[Calibration, ...] = ()
    compression: Compression | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What `/v1/models` tells of one model."""

    name: str
    version: str
    created: int  # seconds since 1970
    task: str
    family: str
    capabilities: tuple[str, ...]
    description: str
    licence: str
    limits: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    host: str = ""
    parent: str | None = None  # the model that this one is an adapter of
    drift: dict[str, Any] = field(default_factory=dict)  # of its last items beside its calibration


@dataclass(frozen=True, slots=True)
class Exposition:
    """One process's metrics in Prometheus text format, and the replica it speaks for."""

    replica: str
    text: str
