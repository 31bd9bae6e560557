"""What `atelier export hf` was told, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from model_store.export.errors import DraftError
from model_store.export.options import Origin

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Target: TypeAlias = Literal["cpu", "cuda"]
Cache: TypeAlias = Literal["float", "int8"]

BLOCKS: Final = (16, 32, 64, 128, 256)
"""Weights that share one scale, in the sizes ONNX Runtime has kernels for."""

BITS: Final[Mapping[Precision, Literal[4, 8, 16, 32]]] = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "int8": 8,
    "int4": 4,
}

MAX_KL: Final = {"fp16": 0.01, "bf16": 0.02, "int8": 0.05, "int4": 0.5}
"""Most nats a token that a precision may cost unless another limit is given."""

MAX_COSINE: Final = {"fp16": 0.001, "bf16": 0.002, "int8": 0.01, "int4": 0.05}
"""The same for embeddings: 1 - cosine."""


@dataclass(frozen=True)
class Options(Origin):
    """How a directory becomes a package.

    `context` bounds prompt and answer in tokens (None: the model's own limit, at most 8192). `adapter` is a PEFT directory
    with a LoRA to merge; `adapters` are such directories by name, each to be chosen by requests. `block` and `max_kl` (nats a
    token) concern int8 and int4; `calibration` is a text file to measure the loss on (None: texts that the model itself writes).
    `kv_cache` is how a decoder keeps keys and values: as it computes, or in 8 bits.
    """

    name: str
    precision: Precision = "fp32"
    device: Target = "cpu"
    context: int | None = None
    adapter: Path | None = None
    block: int = 128
    max_kl: float | None = None
    calibration: Path | None = None
    kv_cache: Cache = "float"
    adapters: Mapping[str, Path] = field(default_factory=dict)

    @property
    def kl_limit(self) -> float:
        """Most nats a token that rounding may cost."""
        if self.max_kl is not None:
            return self.max_kl
        return max(MAX_KL.get(self.precision, 0.0), MAX_KL["int8"] if self.kv_cache == "int8" else 0.0)

    @property
    def cosine_limit(self) -> float:
        """Most that rounding may turn an embedding: 1 - cosine."""
        return self.max_kl if self.max_kl is not None else MAX_COSINE.get(self.precision, 0.0)

    @property
    def rounds(self) -> bool:
        """Whether the package differs from the float32 model."""
        return self.precision != "fp32" or self.kv_cache != "float"

    @property
    def rounding(self) -> str:
        """What is rounded, in words."""
        return self.precision if self.kv_cache == "float" else f"{self.precision} with an int8 cache"

    @property
    def state_dtype(self) -> Literal["float32", "float16", "int8"]:
        """What the graph keeps its state in."""
        if self.kv_cache == "int8":
            return "int8"
        return "float16" if self.device == "cuda" and self.precision != "fp32" else "float32"

    @property
    def bits(self) -> Literal[4, 8, 16, 32]:
        """Bits of a weight."""
        return BITS[self.precision]

    @property
    def shared_scale(self) -> int | None:
        """Weights that share one scale; None where each has its own exponent."""
        return self.block if self.bits < 16 else None

    @property
    def exact(self) -> bool:
        """Whether every machine computes the same but for float32 rounding."""
        return self.bits >= 16 and self.state_dtype == "float32"


def check_block(options: Options) -> None:
    """Raise DraftError for a block that there are no kernels for."""
    if options.block not in BLOCKS:
        raise DraftError(f"--block {options.block}: it must be one of {', '.join(map(str, BLOCKS))}")
