"""The parent's side of an export: what it asks for, what it reads back, and how a dead child is told."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model_store.export import graph_process
from model_store.export.draft import GraphDraft, tensor
from model_store.export.errors import DraftError, ExportError, GraphFailed, ToolsMissing
from model_store.export.graph_process import (
    STAGE_MARK,
    check_tools,
    read_failure,
    read_job,
    read_run,
    run_torch,
    watch,
)

GRAPH = GraphDraft(
    "nets:make",
    (tensor("x", "float32", "batch", 3),),
    (tensor("y", "float32", "batch"),),
    weights=Path("w.pt"),
    sizes={"batch": (2, 4)},
)


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(graph_process.encode_job(GRAPH))

    assert read_job(tmp_path) == GRAPH


def test_a_run_is_read_in_the_order_of_its_cases(tmp_path: Path) -> None:
    for place in range(12):
        np.savez(graph_process.inputs_file(tmp_path, place), x=np.full(1, place))
        np.savez(graph_process.outputs_file(tmp_path, place), y=np.full(1, -place))
    (tmp_path / "report.json").write_text(json.dumps({"versions": {"torch": "2.13"}, "parameters": 5}))
    graph_process.graph_file(tmp_path).write_bytes(b"")

    run = read_run(tmp_path)

    assert [int(case["x"][0]) for case in run.cases] == list(range(12))
    assert [int(outputs["y"][0]) for outputs in run.outputs] == [-place for place in range(12)]
    assert run.graph == graph_process.graph_file(tmp_path)
    assert (run.versions, run.parameters) == ({"torch": "2.13"}, 5)


@pytest.mark.parametrize(("kind", "expected"), [("DraftError", DraftError), ("GraphFailed", GraphFailed)])
def test_a_reported_failure_keeps_its_kind(kind: str, expected: type[ExportError], tmp_path: Path) -> None:
    report = {"kind": kind, "message": "no", "detail": "because"}
    (tmp_path / "failure.json").write_text(json.dumps(report))

    error = read_failure(tmp_path, 1)

    assert type(error) is expected
    assert (error.message, error.detail) == ("no", "because")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (-9, r"was killed by signal 9 \(out of memory\?\)"),
        (-11, "was killed by signal 11"),
        (3, "ended with status 3"),
    ],
)
def test_a_child_that_said_nothing_is_told_by_its_end(status: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "stderr.txt").write_text("\n".join(f"line {place}" for place in range(40)))

    error = read_failure(tmp_path, status)

    assert isinstance(error, GraphFailed)
    assert error.message.startswith("the process that exports ")
    assert re.search(reason, error.message)
    assert error.detail.splitlines() == [f"line {place}" for place in range(25, 40)]


def test_what_torch_prints_stays_away_from_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = GraphDraft("tests.model_store.export.modules:Noisy", GRAPH.inputs, ())
    stages: list[str] = []

    run = run_torch(graph, tmp_path, only_run=True, on_stage=stages.append)

    assert run.outputs[0].keys() == {"output"}
    assert capfd.readouterr() == ("", "")
    assert "be careful" in (tmp_path / "stderr.txt").read_text()
    assert stages[:2] == ["start torch", "build the module"]


def test_an_interrupt_leaves_no_process_behind() -> None:
    # A child that never ends by itself: the call returns only if it is killed.
    sleeper = f"import time; print({STAGE_MARK!r} + 'wait', flush=True); time.sleep(600)"

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch([sys.executable, "-c", sleeper], subprocess.DEVNULL, interrupt)


def test_missing_tools_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_process, "TOOLS", ("torch", "no_such_tool"))

    with pytest.raises(ToolsMissing, match=r'exporting needs no_such_tool: pip install "atelier\[export\]"'):
        check_tools()
