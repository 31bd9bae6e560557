"""`model.json`: what a package says of itself. Pure data and its rules; opens no file and no graph."""

import hashlib
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from model_store.fields import Finite, Part, Positive, RelativePath
from model_store.imaging import Image
from model_store.reading import Shape, check_items
from model_store.tabling import Series, Table

SCHEMA_VERSION: Final = 1
MOST_SAMPLES: Final = 256

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
# Requests name it behind its model's name and a colon, where hosts files have versions: so it is no number.
AdapterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Task = Literal[
    "text-generation",
    "text2text-generation",
    "feature-extraction",
    "text-classification",
    "image-generation",
    "image-to-image",
    "reconstruction",
    "anomaly-detection",
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
# Graphs that read items, those that compute least first.
READERS: Final = ("score", "encode", "reconstruct")
DType = Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]


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
    """One ONNX graph with its signature.

    `rows` go into one run at most, of a graph that answers in one step: where more are no faster, they only take memory.
    """

    file: RelativePath
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: Golden
    rows: Positive | None = None


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


class Calibration(Part):
    """Where one score's threshold comes from: `scores` is an `.npy` of ascending float32 scores of normal items."""

    scores: RelativePath
    threshold: Finite
    quantile: Annotated[float, Field(gt=0, lt=1)]
    data: str


class Scoring(Part):
    """Anomaly scores that a graph computes of `input`, each an output `score.<name>` f32 [batch]; higher is less normal.

    The graph is `score`, or `reconstruct`, which also redraws the input. Either may show where, as `error_map`, which has the
    input's shape and values in [0, 1], and give a `latent`; an input `noise` is drawn by a request's seed and zero without one.
    A score in `samples` is the mean over so many draws of `noise`, as its calibration is. `latents` is an `.npy` f32 [items,
    latent] of normal items, beside which those of requests are watched for drift.
    """

    default: str
    calibrations: dict[str, Calibration]
    samples: dict[str, Annotated[int, Field(ge=2, le=MOST_SAMPLES)]] = Field(default_factory=dict)
    latents: RelativePath | None = None

    @model_validator(mode="after")
    def _are_calibrated(self) -> Self:
        if self.default not in self.calibrations:
            raise ValueError(f"default score {self.default!r} has no calibration")
        unknown = sorted(self.samples.keys() - self.calibrations.keys())
        if unknown:
            raise ValueError(f"sampled scores without a calibration: {', '.join(unknown)}")
        if "kl" in self.calibrations:
            raise ValueError(
                "the divergence alone tells normal items from others no better than chance: score by the ELBO"
            )
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
    table: Table | None = None
    series: Series | None = None
    scoring: Scoring | None = None
    quality: dict[str, Measure] = Field(default_factory=dict)
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
    def _scores_are_computed(self) -> Self:
        if self.scoring is None:
            if "score" in self.capabilities:
                raise ValueError("scores need a calibration")
            return self
        computed = {each.role for graph in self.graphs.values() for each in graph.outputs}
        missing = sorted({f"score.{name}" for name in self.scoring.calibrations} - computed)
        if missing:
            raise ValueError(f"no graph computes {', '.join(missing)}")
        still = [
            graph for graph in self.graphs.values() if "noise" not in {each.role for each in graph.inputs}
        ]
        fixed = {each.role for graph in still for each in graph.outputs}
        fixed &= {f"score.{name}" for name in self.scoring.samples}
        if fixed:
            raise ValueError(f"sampled without taking noise: {', '.join(sorted(fixed))}")
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

    @model_validator(mode="after")
    def _pictures_can_be_asked_for(self) -> Self:
        if self.image is None:
            return self
        wanted = {"edit": {"input", "task"} if self.image.edit else set()}
        if self.image.edit and "inpaint" in self.image.edit.tasks:
            wanted["edit"].add("mask")
        wanted["condition"] = {role for each in self.image.prompt for role in (each.role, each.count) if role}
        for name, roles in wanted.items():
            graph = self.graphs.get(name)
            missing = roles - {each.role for each in (graph.inputs if graph else ())}
            if missing:
                raise ValueError(f"the graph {name!r} does not take {', '.join(sorted(missing))}")
        return self

    @model_validator(mode="after")
    def _styles_are_drawn(self) -> Self:
        if self.image and self.image.style:
            mapping = self.graphs.get(self.image.style.mapping)
            generator = self.graphs.get(self.image.generator or "")
            if mapping is None or self.image.noise not in {each.role for each in mapping.inputs}:
                raise ValueError(f"the graph {self.image.style.mapping!r} does not take {self.image.noise}")
            made = {each.role for each in mapping.outputs}
            if "style" not in made & {each.role for each in (generator.inputs if generator else ())}:
                raise ValueError("a style is an output of its mapping and an input of the generator")
        return self

    @model_validator(mode="after")
    def _items_fit(self) -> Self:
        taken: dict[str, dict[str, Shape]] = {
            name: {each.role: each.shape[1:] for each in self.graphs[name].inputs}
            for name in READERS
            if name in self.graphs
        }
        check_items(taken, self.image, self.table, self.series, impute="impute" in self.capabilities)
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
        if self.image:
            named.update(each.tokenizer for each in self.image.prompt)
            if self.image.style:
                named.add(self.image.style.mean)
        if self.scoring:
            named.update(c.scores for c in self.scoring.calibrations.values())
            if self.scoring.latents:
                named.add(self.scoring.latents)
        return named


def digest_of(raw: bytes, digest: str) -> str:
    """Digest of `model.json` as bytes, its own 64 digits (in `digest`, `sha256:<hex>`) counted as zeros.

    Over bytes and not over parsed fields: no second program has to format numbers as this one does.
    """
    blank = raw.replace(digest.removeprefix("sha256:").encode(), b"0" * 64, 1)
    return "sha256:" + hashlib.sha256(blank).hexdigest()
