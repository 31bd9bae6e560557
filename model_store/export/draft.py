"""What a package is to be made of, before anything is exported: plain data that imports no torch and opens no file.

A reference model (`model_store.zoo`) makes its draft itself; `atelier export` makes one from its options.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from model_store.export.errors import DraftError
from model_store.imaging import Image
from model_store.manifest import (
    AdapterName,
    Capability,
    DType,
    Encoder,
    Family,
    Measure,
    Name,
    Provenance,
    Quantization,
    Scoring,
    Task,
    Tensor,
    Text,
)
from model_store.tabling import Series, Table

Progress: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
"""Called as (steps done, steps in all, latest figures by name) while a recipe runs."""


@dataclass(frozen=True)
class Part:
    """Progress of one of several trainings of the same length, told as that of all of them."""

    whole: Progress
    done: int
    count: int

    def __call__(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Tell of one step of this training."""
        self.whole(self.done * steps + step, self.count * steps, figures)


Range: TypeAlias = tuple[float, float]
"""Lowest and highest value of a random input, both included."""

BATCH_SIZES: Final = (2, 1)
_NAME: Final = TypeAdapter(Name)
_ADAPTER: Final = TypeAdapter(AdapterName)


def tensor(name: str, dtype: DType, *shape: int | str, role: str = "") -> Tensor:
    """Describe one input or output; its role is its name unless it is given."""
    return Tensor(name=name, role=role or name, dtype=dtype, shape=shape)


def check_name(name: str) -> None:
    """Raise DraftError for a name that no package can have: better before an export than after it."""
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise DraftError(
            f"{name!r:.80} is no package name: small letters, digits, . _ -, at most 63"
        ) from error


def check_adapter_name(name: str) -> None:
    """Raise DraftError for a name that no adapter can have."""
    try:
        _ADAPTER.validate_python(name)
    except ValidationError as error:
        raise DraftError(
            f"{name!r:.80} is no adapter's name: a small letter, then small letters, digits, . _ -, at most 63"
        ) from error


@dataclass(frozen=True)
class Pair:
    """The other half of a module that encodes, by its method `encode`: `decoder` is a method of its own, or another `module:factory`.

    Together they have the methods `reconstruct` and `decode`, whose latents are vectors. `latent` is the shape of the decoder's own, without the
    batch; None: as the encoder gives it.
    """

    decoder: str
    encode: str = "forward"
    weights: Path | None = None
    latent: tuple[int, ...] | None = None


@dataclass(frozen=True)
class GraphDraft:
    """One graph to be exported from a module.

    `factory` is a `module:function` (or class) that takes no argument and returns the `nn.Module`; the tensors of `weights`
    (safetensors, or a state dict that `torch.load(weights_only=True)` reads) must be exactly the module's own.
    `method` is what becomes the graph, so several graphs can share one module and one weights file.
    It is called with `inputs` by position, in this order, and returns `outputs` in this order (a tensor, a sequence,
    or a mapping with the outputs' names).

    `cases` is a `module:function` without arguments that returns `list[dict[str, np.ndarray]]`: the inputs, by name, that the
    graph is compared on with what `oracle` (a factory like `factory`, which it defaults to) computes in eager torch. Every
    named dimension must take two sizes among them, and the first case becomes the golden pair: keep it small, and free
    of ties where outputs are integers. With `sampled` the module returns `logits` [batch, selected, vocabulary] in the place of the
    tokens, and the sampler of `model_store.export.sampling` is joined to them: its inputs and outputs
    (`model_store.export.sampled`) are among the declared ones. With `source`, a folder of somebody else's making, `factory`,
    `oracle` and `cases` take it as their one argument. Without `cases`, random inputs are made from `inputs`: `ranges` holds the values they
    may take (standard normal, or 0 and 1 for integers, unless given) and `sizes` two sizes per named dimension.

    With `stored` float16 the float32 weights are rounded to it and the file holds them so; the graph still computes in float32,
    and is compared with a module whose weights are rounded as well. With a `pair`, the methods are those of both halves.
    """

    factory: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: Path | None = None
    method: str = "forward"
    cases: str | None = None
    oracle: str | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sampled: bool = False
    source: Path | None = None
    stored: Literal["float32", "float16"] = "float32"
    pair: Pair | None = None
    rows: int | None = None  # in one run at most


@dataclass(frozen=True)
class Draft:
    """A package to be published. `files` are further files by relative path (tokenizer, calibration scores, ...)."""

    name: str
    task: Task
    family: Family
    capabilities: tuple[Capability, ...]
    description: str
    licence: str
    provenance: Provenance
    graphs: Mapping[str, GraphDraft]
    files: Mapping[str, bytes] = field(default_factory=dict)
    text: Text | None = None
    encoder: Encoder | None = None
    quantization: Quantization | None = None
    image: Image | None = None
    table: Table | None = None
    series: Series | None = None
    scoring: Scoring | None = None
    quality: Mapping[str, Measure] = field(default_factory=dict)
