"""What `export` and the process that compares pictures tell each other, in files of one folder. Imports no torch."""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from model_store.export import graph_process
from model_store.export.errors import ParityError
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.package import Package

PROCESS: Final = "model_store.export.diffusers.proof_process"


@dataclass(frozen=True)
class Job:
    """What to compare: the package in `package` with the pipeline in `directory`.

    `exact`: with the directory's own scheduler; else with the one of diffusers that stands in for it as ours does. `rounded`: the
    package's weights are.
    """

    directory: Path
    package: Path
    exact: bool
    rounded: bool


_JOB: Final = TypeAdapter(Job)


def read_job(folder: Path) -> Job:
    """Read what `prove` asked for."""
    return _JOB.validate_json((folder / "job.json").read_bytes())


def write_figures(folder: Path, figures: list[Figure]) -> None:
    """Leave what was found out."""
    (folder / "figures.json").write_text(json.dumps([asdict(each) for each in figures]))


def prove(directory: Path, package: Package, witness: Witness, *, exact: bool, rounded: bool) -> None:
    """Compare whole pictures, and rows alone with rows among others, in a process of its own; tell each figure.

    Raises ParityError for the first that is over its limit, GraphFailed where nothing could be compared.
    """
    with tempfile.TemporaryDirectory(prefix="atelier-proof-") as work:
        folder = Path(work)
        job = Job(directory.resolve(), package.folder.resolve(), exact, rounded)
        (folder / "job.json").write_bytes(_JOB.dump_json(job))
        with (folder / "stderr.txt").open("wb") as stderr:
            status = graph_process.watch(
                [sys.executable, "-m", PROCESS, str(folder)], stderr.fileno(), witness.stage
            )
        if status != 0:
            raise graph_process.read_failure(folder, status)
        for fields in json.loads((folder / "figures.json").read_text()):
            figure = Figure(**fields)
            witness.figure(figure)
            if not figure.error <= figure.limit:
                raise ParityError(
                    f"{figure.output}: an error of {figure.error:.2g} where {figure.limit:.0e} is allowed",
                    graph=figure.graph,
                    output=figure.output,
                    error=figure.error,
                )
