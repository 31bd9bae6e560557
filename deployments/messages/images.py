"""Pictures that are asked for: drawn, or edited."""

from dataclasses import dataclass
from typing import Literal


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
