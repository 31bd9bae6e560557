"""Runs a graph that was made elsewhere: rows alone and among others, and what they give as its golden pair. Knows no task."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir

from model_store.errors import PackageError
from model_store.export import graph_process, neighbours
from model_store.export.cases import Case
from model_store.export.errors import ParityError
from model_store.export.graph_process import TorchRun
from model_store.export.hf.exported import EXACT, ROUNDED, open_file
from model_store.export.hf.job import save_graph
from model_store.export.parity import Figure
from model_store.export.witness import Witness


def run_graph(model: ir.Model, cases: Sequence[Case], graph: str, folder: Path, witness: Witness) -> TorchRun:
    """Write the graph into the folder and run each case; the first one, of several rows, is recorded.

    Raises ParityError where it does not run, or a row depends on its neighbours.
    """
    path, data = graph_process.graph_file(folder), graph_process.data_file(folder)
    save_graph(model, path, data=data.name)
    names, rows = [str(each.name) for each in model.graph.outputs], len(next(iter(cases[0].values())))
    try:
        session = open_file(path, data)
        apart = neighbours.dependence(session, cases[0], _floating(model))
        found = [dict(zip(names, session.run(case, names), strict=True)) for case in cases]
    except PackageError as error:
        raise ParityError(f"the graph does not run with {rows} rows: {error}", graph=graph) from error
    figure = Figure(graph, "rows alone and among others", rows, apart, neighbours.LIMIT)
    if not apart <= figure.limit:
        raise ParityError(
            f"rows depend on each other: outputs differ by {apart:.2g} of the largest when other rows run beside them "
            f"({figure.limit:.0e} is allowed)",
            graph=graph,
            error=apart,
        )
    witness.figure(figure)
    np.savez_compressed(graph_process.inputs_file(folder, 0), allow_pickle=False, **cases[0])
    np.savez_compressed(graph_process.outputs_file(folder, 0), allow_pickle=False, **found[0])
    constants = [
        each.const_value for each in model.graph.initializers.values() if each.const_value is not None
    ]
    made = {str(model.producer_name): str(model.producer_version or "unknown")} if model.producer_name else {}
    half = any(each.dtype == ir.DataType.FLOAT16 for each in constants)
    return TorchRun(
        folder, list(cases), found, path, sum(each.size for each in constants), made | {"onnx-ir": version("onnx-ir")},
        ROUNDED if half else EXACT,
    )  # fmt: skip


def _floating(model: ir.Model) -> list[str]:
    kinds = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
    return [str(each.name) for each in model.graph.outputs if each.dtype in kinds]
