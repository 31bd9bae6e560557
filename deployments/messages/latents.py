"""What is asked of a model's latents beside encoding, decoding and walking between two, and what compression answers."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from deployments.messages.items import Item, Numbers

Unit: TypeAlias = Literal["value", "deviation"]


@dataclass(frozen=True, slots=True)
class Traverse:
    """Outputs of one latent, or of an item's, with one axis at `steps` places from `low` to `high`.

    A place in the unit "deviation" is so many standard deviations from the axis' mean.
    """

    model: str
    start: Item | Numbers
    axis: int
    low: float
    high: float
    steps: int = 8
    unit: Unit = "value"
    prompt: str | None = None  # of models that draw by words or classes
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Items and latents whose mean counts by this weight."""

    members: tuple[Item | Numbers, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Combine:
    """Output of the weighted sum of the groups' means."""

    model: str
    groups: tuple[Group, ...]
    prompt: str | None = None
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Compress:
    """Latents of each item, all of them in as few bytes, and what these cost beside JPEG and WebP."""

    model: str
    items: tuple[Item, ...]
    prompt: str | None = None
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Decompress:
    """Outputs of what `Compress` made."""

    model: str
    data: bytes
    prompt: str | None = None
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


LatentRequest: TypeAlias = Traverse | Combine | Compress | Decompress


@dataclass(frozen=True, slots=True)
class File:
    """The pictures as one file. `psnr` in dB, None where nothing is lost; `fits`: in as many bytes as the latents."""

    bytes: int
    psnr: float | None
    fits: bool


@dataclass(frozen=True, slots=True)
class Compression:
    """Latents in as few bytes, how near their pictures are, and other files of about this size. JPEG has no alpha: then None."""

    data: bytes
    bits_per_pixel: float
    psnr: float | None
    jpeg: File | None
    webp: File
