"""Frozen dataclasses that cross a process boundary, and the one seam they travel through.

Requests are validated by whoever speaks HTTP; what depends on the model (context length, class names, item shapes)
is checked by the model's program. No pydantic, no numpy: these are pickled between processes.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Numbers: TypeAlias = (
    list[Any] | bytes
)  # nested lists of numbers, or raw little-endian bytes in row-major order


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


# -- text ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation to be written out by the package's chat template; arguments of calls are objects, as templates take them."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    # What the template takes beside (`enable_thinking`, ...).
    variables: Mapping[str, Any] = field(default_factory=dict)


Prompt: TypeAlias = str | tuple[int, ...] | Chat


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text must be: `source` is a JSON schema, a regular expression, a JSON list of strings, or Lark."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Complete:
    """Continue each prompt `n` times. Row `p * n + i` is choice i of prompt p; choices draw from different streams."""

    model: str
    prompts: tuple[Prompt, ...]
    request_id: str = ""
    version: str | None = None
    max_tokens: int | None = 16  # None: as many as the context holds
    min_tokens: int = 0  # before them neither an end token nor a stop ends the text
    n: int = 1
    best_of: int | None = None  # rows computed for each prompt, of which the `n` most probable are kept
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # how many alternatives; 0 gives the chosen tokens' own
    echo: bool = False
    grammar: Grammar | None = None
    # Who asks ("" without a key), for fairness; lower priorities first among one principal's own requests.
    principal: str = ""
    priority: int = 0
    reuse_prefix: bool = (
        True  # whether state of earlier prompts that start alike may be used, and this one's kept
    )
    timeout_seconds: float | None = None

    @property
    def rows_each(self) -> int:
        """Rows computed for each prompt."""
        return max(self.n, self.best_of or 0)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's bytes with its log-probability (nats) and the most probable alternatives, best first.

    `offset` is where the token's text starts in the row's text. The first token of a prompt has no probability.
    """

    token: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one step added to one row. The last of a row has `finish`; the last of a request has `usage`, `timings`."""

    row: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Literal["stop", "length"] | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    version: str = ""
    mean_logprobs: tuple[float, ...] = ()  # of every row's generated tokens, with `usage`


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Token ids of a text or a conversation. `special`: with the tokens a prompt of this model begins with."""

    model: str
    prompt: str | Chat
    request_id: str = ""
    version: str | None = None
    special: bool = True
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Detokenize:
    """Text of token ids."""

    model: str
    tokens: tuple[int, ...]
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Embed:
    """One vector for each text or item. `dimensions`: only the first ones, scaled to length 1 again."""

    model: str
    inputs: "tuple[str | tuple[int, ...] | Item, ...]"
    request_id: str = ""
    version: str | None = None
    dimensions: int | None = None
    principal: str = ""
    priority: int = 0
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Classify:
    """Probability of each of the model's classes for each text."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    request_id: str = ""
    version: str | None = None
    principal: str = ""
    priority: int = 0
    timeout_seconds: float | None = None


# -- items: pictures, tensors, table rows, series -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An encoded picture (PNG, JPEG, WebP bytes)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TensorItem:
    """A tensor as the client sent it. `shape` None: as nested; bytes are float32."""

    data: Numbers
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class RowItem:
    """A table row by its features' names: numbers and words as the client sent them; None or absent is missing."""

    features: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeriesItem:
    """A time series as the client sent it: a value a step, or a list of the channels' values; None is missing.

    `session` is what the last answer gave, to go on from there, or "" to begin; None: the series is all there is.
    """

    values: list[Any]
    timestamps: list[Any] | None = None
    session: str | None = None


Item: TypeAlias = ImageItem | TensorItem | RowItem | SeriesItem


@dataclass(frozen=True, slots=True)
class Reconstruct:
    """Reconstruct each item. With a seed a VAE samples its latent; without one it takes the mean.

    Missing values are filled in; `samples` more reconstructions say how sure that is.
    """

    model: str
    items: tuple[Item, ...]
    request_id: str = ""
    version: str | None = None
    error_map: bool = False
    latent: bool = False
    samples: int | None = None  # None: as many as are usual
    seed: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Score each item with the named score, or the package's default."""

    model: str
    items: tuple[Item, ...]
    request_id: str = ""
    version: str | None = None
    score: str | None = None
    calibration: str | None = None
    threshold: float | None = None
    false_discovery_rate: float | None = None  # of the request's items together, instead of a threshold
    map: bool = False
    map_numbers: bool = False  # as numbers, not as a picture
    mask: bool = False
    contributions: bool = False  # of each feature
    steps: bool = False  # scores of each step
    seed: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Score each item and keep a calibration of them. `labels` say which are anomalies; without them none is."""

    model: str
    items: tuple[Item, ...]
    request_id: str = ""
    version: str | None = None
    labels: tuple[bool, ...] | None = None
    score: str | None = None
    method: Literal["quantile", "false_positive_rate", "f1"] = "false_positive_rate"
    level: float | None = None  # the quantile, or the rate
    default: bool = False
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Calibrations:
    """List a model's calibrations, find one, make it the default of its score, or delete it."""

    model: str
    act: Literal["list", "find", "choose", "delete"]
    id: str = ""
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Encode:
    """Latent of each item."""

    model: str
    items: tuple[Item, ...]
    prompt: str | None = None  # of models that draw by words or classes
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Decode:
    """Output of each latent vector."""

    model: str
    latents: tuple[Numbers, ...]
    prompt: str | None = None  # of models that draw by words or classes
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Interpolate:
    """`steps` outputs on the way from one end to the other, both included; an end is an item or a latent."""

    model: str
    start: Item | Numbers
    end: Item | Numbers
    steps: int = 8
    mode: Literal["linear", "slerp"] = "linear"
    prompt: str | None = None  # of models that draw by words or classes
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to begin from, and what to do with it: `mask` says where it is to be made up (see `pictures.read_mask`)."""

    image: bytes
    mask: bytes | None = None
    task: str | None = None  # of the model's tasks; None: the one that the request implies
    strength: float | None = (
        None  # share of the way from noise that is gone again; 1: nothing of the picture is left
    )
    variation: bool = False  # whether another of its kind is wanted, and not it changed


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw `n` pictures, from noise or from a `source`. Picture i has the seed `seed` + i.

    `prompt` is a class name where the model has classes. None: what the model's manifest says.
    """

    model: str
    prompt: str | None = None
    request_id: str = ""
    version: str | None = None
    n: int = 1
    seed: int = 0
    seeded: bool = True  # whether who asks has chosen the seed
    size: tuple[int, int] | None = None  # width, height in pixels
    steps: int | None = None
    guidance: float | None = None  # scale; 1: none
    negative: str | None = None  # what to be guided away from
    solver: str | None = None
    truncation: float | None = None  # of a style, towards their mean; 1: none
    source: Source | None = None
    previews: int = 0  # pictures of what is foretold, on the way
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = 90  # JPEG and WebP: 0 worst, 100 best
    background: Literal["auto", "transparent", "opaque"] = "auto"
    timeout_seconds: float | None = None
    principal: str = ""  # who asks; "" without a key
    priority: int = 0  # lower is sooner, among the rows of one principal


Request: TypeAlias = (
    Complete
    | Tokenize
    | Detokenize
    | Embed
    | Classify
    | Reconstruct
    | Score
    | Calibrate
    | Calibrations
    | Encode
    | Decode
    | Interpolate
    | Draw
)


# -- answers ------------------------------------------------------------------------------------------------------


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

    Pictures are encoded bytes; `map` and `mask` and `error_map` are PNG.
    """

    image: bytes | None = None
    array: Array | None = None
    error: float | None = None
    error_map: bytes | None = None
    latent: Array | None = None
    spread: Array | None = None
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


class ModelClient(Protocol):
    """The seam between the door and the engines: a local one in a host, a remote one in the gateway.

    Every method raises `deployments.errors.ServingError` and nothing else on purpose.
    """

    async def cards(self) -> tuple[Card, ...]:
        """Cards of all models behind this client."""

    async def call(self, request: Request) -> Reply:
        """Answer a one-shot request (anything but `Complete`)."""

    def stream(self, request: Complete) -> AsyncGenerator[TextDelta, None]:
        """Continue text. Closing the generator cancels the rows at their next step."""

    async def collect(self, request: Complete) -> tuple[TextDelta, ...]:
        """Continue text and answer once: one delta per row, in row order; the last one has usage and timings."""

    def pictures(self, request: Draw) -> AsyncGenerator[Picture, None]:
        """Draw, one picture after the other as they are ready; closing the generator cancels the others."""

    async def expositions(self) -> tuple[Exposition, ...]:
        """Metrics of every replica behind this client (not of this process's own door)."""

    async def ready(self) -> bool:
        """Whether a model answered lately, so that a request sent now would be answered."""
