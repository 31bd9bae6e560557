"""A decoder graph in a file: opening it, joining the sampler, recording its golden run."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from model_store.export import graph_process
from model_store.export.graph_process import TorchRun
from model_store.export.hf.golden_case import golden_case
from model_store.export.hf.job import Report
from model_store.export.hf.signature import signature
from model_store.export.sampling import join
from model_store.manifest import DType
from model_store.session import Session

EXACT: Final = (1e-3, 1e-4)
ROUNDED: Final = (5e-2, 5e-2)
"""Relative and absolute tolerance of golden outputs. Kernels for rounded weights differ by processor."""


@dataclass(frozen=True)
class Exported:
    """A graph without sampler in a file, its state of `dtype`; large weights lie in a file beside it.

    `tolerance` is the relative and absolute one of its golden outputs. With `adapters` it takes which one each row wants.
    """

    path: Path
    dtype: DType = "float32"
    tolerance: tuple[float, float] = EXACT
    adapters: bool = False

    def open(self) -> Session:
        """Open it on the CPU."""
        return open_file(self.path, self.data)

    @property
    def data(self) -> Path:
        """Where large weights are."""
        return self.path.with_name(self.path.name + ".data")


def open_file(graph: Path, data: Path) -> Session:
    """Open a graph whose outside weights are in `data`, if that exists."""
    return Session(
        graph.read_bytes(), threads=0, external={data.name: data.read_bytes()} if data.exists() else None
    )


def finish(graph: Exported, package: Path, folder: Path, report: Report) -> TorchRun:
    """Join the sampler, record the golden run, and put large weights into the package."""
    inputs = golden_case(graph.open(), report.layers, report.vocabulary, graph.dtype, adapters=graph.adapters)
    # A float16 state is for CUDA, whose captured graphs have no control flow.
    joined = join(onnx.load(graph.path, load_external_data=False), branches=graph.dtype != "float16")
    path = graph_process.graph_file(folder)
    onnx.save(joined, path)
    outputs = [each.name for each in signature(report.layers, graph.dtype).outputs]
    found = open_file(path, graph.data).run(inputs, outputs)
    recorded = dict(zip(outputs, found, strict=True))
    np.savez_compressed(graph_process.inputs_file(folder, 0), allow_pickle=False, **inputs)
    np.savez_compressed(graph_process.outputs_file(folder, 0), allow_pickle=False, **recorded)
    if graph.data.exists():
        shutil.move(graph.data, package / graph.data.name)
    return TorchRun(
        folder, [dict(inputs)], [recorded], path, report.parameters, report.versions, graph.tolerance
    )
