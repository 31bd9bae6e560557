"""Runs `torch_graph` in a process of its own and reads back what it wrote. Imports no torch and knows no packages."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import TypeAdapter

from model_store.export.cases import Array, Case
from model_store.export.draft import GraphDraft
from model_store.export.errors import DraftError, ExportError, GraphFailed, ToolsMissing

TOOLS: Final = ("torch", "onnx", "onnxscript", "safetensors")
STAGE_MARK: Final = "@stage "
DETAIL_LINES: Final = 15

_JOB: Final = TypeAdapter(GraphDraft)


@dataclass(frozen=True)
class TorchRun:
    """What a module computed in torch: `outputs[i]` for `cases[i]`; `graph` is None where it was only run.

    `parameters` counts the numbers the module has learned, `versions` names the tools; `tolerance` is the relative and the
    absolute one within which the first case must be reproduced wherever the graph is opened.
    """

    folder: Path
    cases: list[Case]
    outputs: list[dict[str, Array]]
    graph: Path | None
    parameters: int
    versions: dict[str, str]
    tolerance: tuple[float, float] = (1e-3, 1e-4)


def check_tools() -> None:
    """Raise ToolsMissing unless everything that exporting needs is installed."""
    missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if missing:
        raise ToolsMissing(f'exporting needs {", ".join(missing)}: pip install "atelier[export]"')


def run_torch(
    graph: GraphDraft,
    folder: Path,
    *,
    only_run: bool = False,
    on_stage: Callable[[str], None] = lambda _: None,
) -> TorchRun:
    """Export one graph into the empty `folder`; with `only_run` just compute its cases.

    What torch prints stays in the folder. Raises GraphFailed or DraftError with the last lines of the cause.
    """
    check_tools()
    on_stage("start torch")
    (folder / "job.json").write_bytes(encode_job(graph))
    command = [sys.executable, "-m", "model_store.export.torch_graph", str(folder)]
    with (folder / "stderr.txt").open("wb") as stderr:
        status = watch([*command, "--only-run"] if only_run else command, stderr.fileno(), on_stage)
    if status != 0:
        raise read_failure(folder, status)
    return read_run(folder)


def watch(command: list[str], stderr: int, on_stage: Callable[[str], None]) -> int:
    """Run a command, passing on the stages it prints; return its status. Ends it when interrupted."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                if line.startswith(STAGE_MARK):
                    on_stage(line.removeprefix(STAGE_MARK).strip())
        except BaseException:  # Ctrl-C, too, leaves no process behind
            process.kill()
            raise
    return process.returncode


def read_failure(folder: Path, status: int) -> ExportError:
    """Say why a run failed: what it reported, or how its process ended and what it printed last."""
    report = folder / "failure.json"
    if report.exists():
        told = json.loads(report.read_text())
        kind = DraftError if told["kind"] == DraftError.__name__ else GraphFailed
        return kind(told["message"], detail=told["detail"])
    lines = (folder / "stderr.txt").read_text(errors="replace").strip().splitlines()[-DETAIL_LINES:]
    reason = (
        f"was killed by signal {-status} (out of memory?)" if status < 0 else f"ended with status {status}"
    )
    return GraphFailed(f"the process that exports {reason}", detail="\n".join(lines))


def read_run(folder: Path) -> TorchRun:
    """Read what a finished run left in its folder."""
    count = len(list(folder.glob("case-*.inputs.npz")))
    graph = graph_file(folder)
    report = json.loads((folder / "report.json").read_text())
    return TorchRun(
        folder=folder,
        cases=[_arrays(inputs_file(folder, place)) for place in range(count)],
        outputs=[_arrays(outputs_file(folder, place)) for place in range(count)],
        graph=graph if graph.exists() else None,
        parameters=report["parameters"],
        versions=report["versions"],
    )


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def encode_job(graph: GraphDraft) -> bytes:
    """What `run_torch` leaves for its subprocess."""
    return _JOB.dump_json(graph)


def read_job(folder: Path) -> GraphDraft:
    """Read what `run_torch` asked for."""
    return _JOB.validate_json((folder / "job.json").read_bytes())


def graph_file(folder: Path) -> Path:
    """Where the exported graph is written."""
    return folder / "graph.onnx"


def data_file(folder: Path) -> Path:
    """Where weights are written that no graph file can hold. The graph names this file: another graph's folder has another name."""
    return folder / f"{folder.name}.data"


def inputs_file(folder: Path, case: int) -> Path:
    """Where the inputs of a case are written."""
    return folder / f"case-{case}.inputs.npz"


def outputs_file(folder: Path, case: int) -> Path:
    """Where torch's outputs for a case are written."""
    return folder / f"case-{case}.outputs.npz"
