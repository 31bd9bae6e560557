"""What `atelier export hf` was told, as plain data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from model_store.export.options import NOT_STATED

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Target: TypeAlias = Literal["cpu", "cuda"]

BLOCKS: Final = (16, 32, 64, 128, 256)
"""Weights that share one scale, in the sizes ONNX Runtime has kernels for."""

MAX_KL: Final = {"fp16": 0.01, "bf16": 0.02, "int8": 0.05, "int4": 0.5}
"""Most nats a token that a precision may cost unless another limit is given."""


@dataclass(frozen=True)
class Options:
    """How a directory becomes a package.

    `context` bounds prompt and answer in tokens (None: the model's own limit, at most 8192). `adapter` is a PEFT directory
    with a LoRA to merge. `block` and `max_kl` (nats a token) concern int8 and int4; `calibration` is a text file to measure
    the loss on (None: texts that the model itself writes).
    """

    name: str
    precision: Precision = "fp32"
    device: Target = "cpu"
    context: int | None = None
    adapter: Path | None = None
    block: int = 32
    max_kl: float | None = None
    calibration: Path | None = None
    description: str = ""
    licence: str = NOT_STATED
    data: str = NOT_STATED
    data_licence: str = NOT_STATED
    attribution: str = NOT_STATED
    home: str = NOT_STATED

    @property
    def kl_limit(self) -> float:
        """Most nats a token that rounding may cost."""
        return self.max_kl if self.max_kl is not None else MAX_KL.get(self.precision, 0.0)

    @property
    def state_dtype(self) -> Literal["float32", "float16"]:
        """What the graph computes and keeps its state in."""
        return "float16" if self.device == "cuda" and self.precision != "fp32" else "float32"

    @property
    def bits(self) -> Literal[4, 8, 16]:
        """Bits of a rounded weight."""
        return 4 if self.precision == "int4" else 8 if self.precision == "int8" else 16

    @property
    def shared_scale(self) -> int | None:
        """Weights that share one scale; None where each has its own exponent."""
        return self.block if self.bits < 16 else None

    @property
    def exact(self) -> bool:
        """Whether every machine computes the same but for float32 rounding."""
        return self.bits == 16 and self.state_dtype == "float32"
