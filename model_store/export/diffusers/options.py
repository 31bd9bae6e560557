"""What `atelier export diffusers` was told, as plain data."""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from model_store.export.errors import DraftError
from model_store.export.options import Origin

Precision: TypeAlias = Literal["fp32", "fp16"]
Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Options(Origin):
    """How a directory becomes a package. `sizes` are beside the model's own, as `WIDTHxHEIGHT`."""

    name: str
    precision: Precision = "fp32"
    sizes: tuple[str, ...] = ()


def parse_size(text: str) -> Size:
    """Read `768x512`. Raises DraftError."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise DraftError(f"--size {text!r} is not like 768x512: width x height in pixels")
    return int(found[1]), int(found[2])
