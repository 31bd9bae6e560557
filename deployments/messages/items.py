"""Pictures, tensors, table rows and series, and what is asked of them and of their latents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Numbers: TypeAlias = (
    list[Any] | bytes
)  # nested lists of numbers, or raw little-endian bytes in row-major order


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An encoded picture (PNG, JPEG, WebP bytes)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TensorItem:
    """A tensor as the client sent it. `shape` None: as nested; bytes are float32; an array stands for lists of numbers."""

    data: "Numbers | NDArray[np.float64]"
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
