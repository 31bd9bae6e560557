"""What `decoder` and its fresh process tell each other, in files of one folder. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from pydantic import TypeAdapter

SEED: Final = 20_260_101
GRAPH: Final = "step.onnx"
INPUTS: Final = ("input_ids", "select", "seqlens_k", "total_sequence_length")

MOST_INLINE_BYTES: Final = 1_610_612_736
"""Larger weights go into a file beside the graph: protobuf ends at 2 GiB, and copies of a graph are made."""


@dataclass(frozen=True)
class Job:
    """What the process is to do. `prompts` are lengths in tokens, `steps` the greedy tokens after each.

    `adapter` is merged into the weights, `adapters` stay beside them.
    """

    directory: Path
    adapter: Path | None
    context: int
    vocabulary: int
    prompts: tuple[int, ...]
    steps: int
    adapters: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Reference:
    """One row alone in transformers: `tokens` [length + steps], of which the first `length` are the prompt; the rest greedy.

    `logits` f32 [length + steps, vocabulary] follow each token.
    """

    length: int
    tokens: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Report:
    """What the process found out: `layers` are (kv_heads, head_dim)."""

    versions: dict[str, str]
    parameters: int
    layers: list[tuple[int, int]]
    vocabulary: int


Layers: TypeAlias = Sequence[tuple[int, int]]
"""(kv_heads, head_dim) of each."""

_JOB: Final = TypeAdapter(Job)
_REPORT: Final = TypeAdapter(Report)


def past_names(layers: int) -> list[str]:
    """Inputs that hold the state."""
    return [f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def present_names(layers: int) -> list[str]:
    """Outputs that hold the state."""
    return [f"present.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def write_job(folder: Path, job: Job) -> None:
    """Leave a job for the process."""
    (folder / "job.json").write_bytes(_JOB.dump_json(job))


def read_job(folder: Path) -> Job:
    """Read what `write_job` left."""
    return _JOB.validate_json((folder / "job.json").read_bytes())


def read_report(folder: Path) -> Report:
    """Read what a finished process left."""
    return _REPORT.validate_json((folder / "report.json").read_bytes())


def write_references(folder: Path, references: Sequence[Reference], adapter: int = 0) -> None:
    """Write every row's arrays; `adapter` is the place of the one that was in the weights, counted from 1."""
    for place, each in enumerate(references):
        np.savez(
            folder / f"reference-{adapter}-{place}.npz",
            allow_pickle=False,
            length=each.length,
            tokens=each.tokens,
            logits=each.logits,
        )


def read_references(folder: Path, adapter: int = 0) -> list[Reference]:
    """Read what `write_references` wrote."""
    found = []
    for place in range(len(list(folder.glob(f"reference-{adapter}-*.npz")))):
        with np.load(folder / f"reference-{adapter}-{place}.npz", allow_pickle=False) as stored:
            found.append(Reference(int(stored["length"]), stored["tokens"], stored["logits"]))
    return found


def save_graph(
    model: ir.Model, path: Path, most_inline_bytes: int = MOST_INLINE_BYTES, *, data: str | None = None
) -> None:
    """Write a graph; weights above the limit go into `data` beside it (`<path>.data`), which its tensors name without a folder."""
    size = sum(
        each.const_value.nbytes for each in model.graph.initializers.values() if each.const_value is not None
    )
    if size > most_inline_bytes:
        ir.save(model, path, external_data=data or f"{path.name}.data")
    else:
        ir.save(ir.external_data.load_to_model(model), path)
