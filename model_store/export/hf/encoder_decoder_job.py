"""What `encoder_decoder` and its fresh process tell each other, in files of one folder. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

ENCODE: Final = "encode.onnx"
STEP: Final = "step.onnx"


@dataclass(frozen=True)
class Job:
    """What the process is to do: `source` and `context` are the longest source and answer in tokens.

    An answer begins with the tokens `start`, never has `banned` ones, and is compared over `steps` tokens for sources of
    the lengths `sources`.
    """

    directory: Path
    source: int
    context: int
    vocabulary: int
    start: tuple[int, ...]
    banned: tuple[int, ...]
    padding: int
    sources: tuple[int, ...]
    steps: int


@dataclass(frozen=True)
class Report:
    """What the process found out: `layers` are (heads, head_dim), alike for own tokens and source."""

    versions: dict[str, str]
    parameters: int
    layers: list[tuple[int, int]]


@dataclass(frozen=True)
class Reference:
    """One row of transformers' generate: `source` tokens, `tokens` from the start on, `logits` f32 after each but the last.

    Where the answer's beginning is given, logits are those from its last given token on.
    """

    source: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


_JOB: Final = TypeAdapter(Job)
_REPORT: Final = TypeAdapter(Report)


def cross_names(layers: int) -> list[str]:
    """Outputs of `encode`, inputs of `step`: what the source left for every decoder layer."""
    return [f"cross.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def write_job(folder: Path, job: Job) -> None:
    """Leave a job for the process."""
    (folder / "job.json").write_bytes(_JOB.dump_json(job))


def read_job(folder: Path) -> Job:
    """Read what `write_job` left."""
    return _JOB.validate_json((folder / "job.json").read_bytes())


def write_report(folder: Path, report: Report) -> None:
    """Leave what was found out."""
    (folder / "report.json").write_bytes(_REPORT.dump_json(report))


def read_report(folder: Path) -> Report:
    """Read what `write_report` left."""
    return _REPORT.validate_json((folder / "report.json").read_bytes())


def write_references(folder: Path, references: Sequence[Reference]) -> None:
    """Write every row's arrays."""
    for place, each in enumerate(references):
        path = folder / f"reference-{place}.npz"
        np.savez(path, allow_pickle=False, source=each.source, tokens=each.tokens, logits=each.logits)


def read_references(folder: Path) -> list[Reference]:
    """Read what `write_references` wrote."""
    found = []
    for place in range(len(list(folder.glob("reference-*.npz")))):
        with np.load(folder / f"reference-{place}.npz", allow_pickle=False) as stored:
            found.append(Reference(stored["source"], stored["tokens"], stored["logits"]))
    return found
