"""`model.json`: what a package says of itself. Pure data and its rules; opens no file and no graph."""

import hashlib
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

SCHEMA_VERSION: Final = 1

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
# Requests name it behind its model's name and a colon, where hosts files have versions: so it is no number.
AdapterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
# Relative, forward slashes, no dot segments: a path can name nothing outside its package folder.
RelativePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=255
    ),
]
Task = Literal[
    "text-generation",
    "text2text-generation",
    "feature-extraction",
    "text-classification",
    "image-generation",
    "image-to-image",
    "reconstruction",
]
Family = Literal["autoencoder", "vae", "gan", "lstm", "transformer", "flow", "diffusion", "linear"]
Capability = Literal[
    "complete",
    "chat",
    "embed",
    "classify",
    "generate_image",
    "edit_image",
    "reconstruct",
    "score",
    "encode",
    "decode",
    "interpolate",
    "impute",
]
DType = Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]
Positive = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """A frozen piece of the manifest: unknown fields and coerced types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Tensor(Part):
    """One graph input or output. `role` is what it means, `name` what the graph calls it.

    A dimension is a size, or the name of a dimension that may vary (`batch`, `time`, ...).
    """

    name: str
    role: str
    dtype: DType
    shape: tuple[Positive | str, ...]


class Golden(Part):
    """Recorded inputs and outputs (`.npz`, keys are tensor names), replayed whenever the graph is loaded."""

    inputs: RelativePath
    outputs: RelativePath
    rtol: Annotated[float, Field(ge=0, le=0.1)] = 1e-3
    atol: Annotated[float, Field(ge=0, le=0.1)] = 1e-4


class Graph(Part):
    """One ONNX graph with its signature."""

    file: RelativePath
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: Golden


class State(Part):
    """What a text row keeps between steps: graph input `past` is replaced by graph output `present`.

    `shape` is one row's own, without the leading batch dimension. A dimension named `cache` counts the places of a
    row's tokens, in order: the server chooses its size, up to the context. `in_place` says that both may be bound to the
    same memory (a KV cache under GroupQueryAttention); otherwise the new state is written beside the old one.
    """

    past: str
    present: str
    shape: tuple[Positive | Literal["cache"], ...]
    dtype: DType = "float32"
    in_place: bool = False


class Source(Part):
    """What an encoder-decoder reads: the graph `encode` writes `state` (`present` its output, `past` the step's input)."""

    context: Positive
    state: tuple[State, ...]
    # Every answer begins with this token and goes on with these; every source ends with `suffix`.
    start_token_id: int
    forced: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()


class Chat(Part):
    """How a conversation becomes a prompt: a Jinja template, and how it wants tools to be called (None: not at all)."""

    template: RelativePath
    bos_token: str = ""
    eos_token: str = ""
    tools: Literal["hermes", "llama3", "mistral"] | None = None


class Text(Part):
    """How text becomes token ids and how many fit."""

    tokenizer: RelativePath
    vocabulary: Positive
    context: Positive
    state: tuple[State, ...]
    # True where the graph takes `seqlens_k` and `total_sequence_length` (attention over a cache of `context` places).
    # A recurrent model has no such limit on length: its `context` bounds prompt + answer all the same.
    attention: bool
    bos_token_id: int | None = None  # what an empty prompt begins with
    eos_token_ids: tuple[int, ...] = ()
    # Token ids put before every prompt that is text.
    prefix: tuple[int, ...] = ()
    chat: Chat | None = None
    source: Source | None = None
    # LoRA adapters in the graph `step`, of which a request may choose one: input `adapter` i64 [adapted] is a place in this list,
    # counted from 1 (0: none), for each row that input `adapter_row` i64 [adapted] names.
    adapters: tuple[AdapterName, ...] = ()

    @model_validator(mode="after")
    def _adapters_differ(self) -> Self:
        if len(set(self.adapters)) < len(self.adapters):
            raise ValueError("an adapter is named twice")
        return self


class Encoder(Part):
    """A model that reads a whole text at once: graph `encode`, inputs `input_ids`, `length` (right-padded rows).

    Its output `embedding` f32 [batch, width] has length 1; its output `probability` f32 [batch, classes] sums to 1.
    """

    tokenizer: RelativePath
    vocabulary: Positive
    context: Positive
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()


class Quantization(Part):
    """Bits of a weight, and what they and the type of the state cost, beside the same model in float32.

    `kl` is the mean KL divergence in nats a token, or a text that is classified. Embeddings have `cosine_distance`, the mean
    of 1 - cosine.
    """

    bits: Literal[4, 8, 16, 32]
    block: Positive | None = None
    kl: Finite | None = None
    cosine_distance: Finite | None = None
    limit: Finite

    @model_validator(mode="after")
    def _has_one_cost(self) -> Self:
        if (self.kl is None) == (self.cosine_distance is None):
            raise ValueError("rounding costs either a KL divergence or a cosine distance")
        return self


class Betas(Part):
    """How a diffusion model was trained to add noise: variances from `start` to `end` at each of `trained` times.

    `scaled_linear`: their roots are evenly spaced. `zero_snr`: rescaled so that nothing is left at the last time.
    """

    schedule: Literal["linear", "scaled_linear"]
    start: Annotated[float, Field(gt=0, lt=1)]
    end: Annotated[float, Field(gt=0, lt=1)]
    trained: Annotated[int, Field(ge=1, le=100_000)] = 1000
    zero_snr: bool = False

    @model_validator(mode="after")
    def _grow(self) -> Self:
        if self.start > self.end:
            raise ValueError("noise grows with time: `start` is above `end`")
        return self


class Denoise(Part):
    """How the graph `denoise` makes pictures out of noise, in steps.

    Its inputs are `latent` f32 [batch, channels, height, width], `time` [batch] and conditions, each by its role; its
    output's role is the `prediction`. A flow's time runs from 0 (noise) to 1 (data) and `velocity` is the latent's change with
    it; a diffusion model's is a place among the trained times. Conditions are inputs of a request (`label` i64 [batch]: the place
    of a class, behind the last one: none), or what the graph `condition` makes of them once, by the same roles.
    The last latent is the picture, in [-1, 1]; or the graph `decode` makes `output` of it, in [0, 1].
    """

    prediction: Literal["velocity", "epsilon", "v_prediction"]
    # The first is the default.
    solvers: Annotated[tuple[Literal["euler", "heun", "ddim", "dpm"], ...], Field(min_length=1)]
    # `even`, `trained`: of a flow. The others: of a diffusion model.
    spacing: Literal["even", "trained", "leading", "trailing", "linspace"]
    shift: Annotated[float, Field(gt=0, le=100)] = 1.0  # of a flow's noise levels
    betas: Betas | None = None
    offset: Annotated[int, Field(ge=0, le=1000)] = 0  # of `leading` times
    to_clean: bool = True  # whether the last step of DDIM leaves no noise at all
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # of what DDIM foretells
    steps: Positive = 20
    most_steps: Positive = 100
    # 1: none. A model that was trained without "no condition" takes no other.
    guidance: Annotated[float, Field(ge=1, le=100)] = 1.0
    most_guidance: Annotated[float, Field(ge=1, le=100)] = 1.0
    # Sizes beside the picture's own, as width and height, where the graph's `height` and `width` vary.
    sizes: tuple[tuple[Positive, Positive], ...] = ()
    # Pixels a side for one place of the latent.
    reduction: Positive = 1

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        flow = self.prediction == "velocity"
        if flow != (self.betas is None):
            raise ValueError("a diffusion model has betas, a flow has none")
        if flow != (self.spacing in ("even", "trained")):
            raise ValueError(f"{self.spacing!r} is no spacing of a model that predicts {self.prediction}")
        others = set(self.solvers) - ({"euler", "heun"} if flow else {"euler", "ddim", "dpm"})
        if others or len(set(self.solvers)) < len(self.solvers):
            raise ValueError(f"not the solvers of a model that predicts {self.prediction}: {self.solvers}")
        if self.betas and self.betas.zero_snr and self.prediction == "epsilon":
            raise ValueError("where nothing but noise is left, noise foretells nothing: predict v")
        return self

    @model_validator(mode="after")
    def _defaults_are_in_range(self) -> Self:
        if self.steps > self.most_steps or self.guidance > self.most_guidance:
            raise ValueError("by default more than the most")
        if self.betas and self.most_steps >= self.betas.trained:
            raise ValueError("there are fewer steps than trained times")
        return self


class Image(Part):
    """What pictures go in and come out: values in [0, 1], channels first."""

    channels: Literal[1, 3, 4]
    height: Positive
    width: Positive
    classes: tuple[str, ...] = ()
    # The graph that draws pictures, and the role of its noise input (standard normal, one vector a row).
    generator: str | None = None
    noise: str | None = None
    denoise: Denoise | None = None

    @model_validator(mode="after")
    def _latent_fits(self) -> Self:
        if self.denoise:
            each = self.denoise.reduction
            for width, height in ((self.width, self.height), *self.denoise.sizes):
                if width % each or height % each:
                    raise ValueError(f"{width}x{height} is no multiple of {each} pixels")
        return self


class Calibration(Part):
    """Where one score's threshold comes from: `scores` is an `.npy` of ascending float32 scores of normal items."""

    scores: RelativePath
    threshold: Finite
    quantile: Annotated[float, Field(gt=0, lt=1)]
    data: str


class Scoring(Part):
    """Anomaly scores the `reconstruct` graph computes (output role `score.<name>`); higher is less normal."""

    default: str
    calibrations: dict[str, Calibration]

    @model_validator(mode="after")
    def _default_is_calibrated(self) -> Self:
        if self.default not in self.calibrations:
            raise ValueError(f"default score {self.default!r} has no calibration")
        return self


class Measure(Part):
    """One measured figure on held-out data, with a baseline beside it where one exists."""

    value: Finite
    higher_is_better: bool
    data: str
    baseline: Finite | None = None
    baseline_name: str | None = None
    note: str | None = None


class Provenance(Part):
    """Where the weights come from."""

    data: str
    data_licence: str
    attribution: str
    home: str
    recipe: str
    seed: int | None = None
    steps: int | None = None
    seconds: Finite | None = None
    parameters: int | None = None


class File(Part):
    """Digest and size of one file of the package."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Part):
    """One immutable version of one model. Every file of the package is listed but `model.json` itself."""

    schema_version: Literal[1]
    name: Name
    version: Version
    created: AwareDatetime
    task: Task
    family: Family
    capabilities: tuple[Capability, ...]
    description: str
    licence: str
    graphs: dict[str, Graph]
    text: Text | None = None
    encoder: Encoder | None = None
    quantization: Quantization | None = None
    image: Image | None = None
    scoring: Scoring | None = None
    quality: dict[str, Measure] = {}
    provenance: Provenance
    exporter: dict[str, str]
    files: dict[RelativePath, File]
    # Over the file's own bytes (`digest_of`), so that a flipped bit in the manifest itself is seen as well.
    digest: Sha256

    @model_validator(mode="after")
    def _files_are_listed(self) -> Self:
        missing = sorted(self.named_files() - self.files.keys())
        if missing:
            raise ValueError(f"files without a digest: {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _adapters_can_be_chosen(self) -> Self:
        if self.text and self.text.adapters:
            step = self.graphs.get("step")
            if not {"adapter", "adapter_row"} <= {each.name for each in (step.inputs if step else ())}:
                raise ValueError("the graph 'step' does not take which adapter a row wants")
        return self

    @model_validator(mode="after")
    def _can_be_denoised(self) -> Self:
        if self.image and self.image.denoise:
            graph = self.graphs.get("denoise")
            taken = {each.role: each for each in (graph.inputs if graph else ())}
            if graph is None or not {"latent", "time"} <= taken.keys():
                raise ValueError("the graph 'denoise' does not take a latent and a time")
            if self.image.denoise.prediction not in {each.role for each in graph.outputs}:
                raise ValueError(f"the graph 'denoise' has no output {self.image.denoise.prediction!r}")
            if len(taken["latent"].shape) != 4 or not isinstance(taken["latent"].shape[1], int):
                raise ValueError("a latent is [batch, channels, height, width], of so many channels")
        return self

    def named_files(self) -> set[str]:
        """Paths that any part of the manifest names."""
        named = {path for g in self.graphs.values() for path in (g.file, g.golden.inputs, g.golden.outputs)}
        if self.text:
            named.add(self.text.tokenizer)
            if self.text.chat:
                named.add(self.text.chat.template)
        if self.encoder:
            named.add(self.encoder.tokenizer)
        if self.scoring:
            named.update(c.scores for c in self.scoring.calibrations.values())
        return named


def digest_of(raw: bytes, digest: str) -> str:
    """Digest of `model.json` as bytes, its own 64 digits (in `digest`, `sha256:<hex>`) counted as zeros.

    Over bytes and not over parsed fields: no second program has to format numbers as this one does.
    """
    blank = raw.replace(digest.removeprefix("sha256:").encode(), b"0" * 64, 1)
    return "sha256:" + hashlib.sha256(blank).hexdigest()
