"""Makes a package of a draft: exports every graph, proves it against torch, seals and publishes, or publishes nothing."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

from model_store.errors import InvalidManifest
from model_store.export import graph_process
from model_store.export.draft import Draft, GraphDraft, check_name
from model_store.export.errors import DraftError, ExportError
from model_store.export.graph_process import TorchRun
from model_store.export.parity import compare_graph
from model_store.export.witness import NOBODY, Witness
from model_store.manifest import Golden, Graph, Manifest
from model_store.session import Device, open_graph
from model_store.store import Package, Store, seal

Runs: TypeAlias = Mapping[str, TorchRun]
Refine: TypeAlias = Callable[[Draft, Runs], tuple[Draft, Runs]]
"""What makes another package of one that is proven: other graphs under the same signatures."""
Check: TypeAlias = Callable[[Package], None]
"""What looks at a package whose graphs are proven, all of them together, and raises ExportError."""


def publish(
    draft: Draft,
    store_url: str,
    witness: Witness = NOBODY,
    refine: Refine | None = None,
    check: Check | None = None,
) -> Manifest:
    """Export, verify and publish a draft as the next version of its name; return its manifest.

    Nothing is published unless every output of every graph matches torch on every case, and `check` is content; `refine` comes
    after that, and answers for what it changes. Raises ExportError (see its tree) or PackageError from the store.
    """
    check_name(draft.name)
    if not draft.graphs:
        raise DraftError(f"the draft of {draft.name} has no graph")
    graph_process.check_tools()
    store = Store(store_url)
    number = str(max((int(each) for each in store.versions(draft.name)), default=0) + 1)
    with tempfile.TemporaryDirectory(prefix="atelier-export-") as work:
        runs = {name: _export(name, graph, Path(work), witness) for name, graph in draft.graphs.items()}
        folder = Path(work) / "package"
        manifest = lay_out(draft, number, runs, folder)
        for name, run in runs.items():
            witness.step(f"compare the graph {name} with torch")
            _prove(Package(folder, manifest), name, run, witness)
        if check is not None:
            check(Package(folder, manifest))
        if refine is not None:
            draft, changed = refine(draft, runs)
            folder = Path(work) / "refined"
            lay_out(draft, number, changed, folder)
        witness.step(f"publish version {number}")
        return store.publish(folder)


def _export(name: str, graph: GraphDraft, work: Path, witness: Witness) -> TorchRun:
    folder = work / f"graph-{name}"
    folder.mkdir()
    witness.step(f"export the graph {name}")
    try:
        return graph_process.run_torch(graph, folder, on_stage=witness.stage)
    except ExportError as error:
        raise type(error)(f"graph {name!r}: {error.message}", detail=error.detail) from error


def lay_out(draft: Draft, number: str, runs: Runs, folder: Path) -> Manifest:
    """Lay out the package's files and seal them."""
    for path, content in draft.files.items():
        target = folder / path
        if not target.resolve().is_relative_to(folder.resolve()):
            raise DraftError(f"the file {path!r} lies outside the package")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    graphs = {name: _add_graph(folder, name, draft.graphs[name], run) for name, run in runs.items()}
    fields = _fields(draft, number) | {
        "graphs": {name: graph.model_dump(mode="json") for name, graph in graphs.items()},
        "exporter": _exporter(runs),
    }
    try:
        return seal(folder, fields)
    except InvalidManifest as error:
        raise DraftError(f"the draft makes no valid manifest: {error}") from error


def _add_graph(folder: Path, name: str, graph: GraphDraft, run: TorchRun) -> Graph:
    paths = {
        "file": f"{name}.onnx",
        "inputs": f"golden/{name}.inputs.npz",
        "outputs": f"golden/{name}.outputs.npz",
    }
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(graph_process.graph_file(run.folder), folder / paths["file"])
    if (data := graph_process.data_file(run.folder)).exists():
        shutil.copyfile(data, folder / data.name)
    shutil.copyfile(graph_process.inputs_file(run.folder, 0), folder / paths["inputs"])
    shutil.copyfile(graph_process.outputs_file(run.folder, 0), folder / paths["outputs"])
    rtol, atol = run.tolerance
    golden = Golden(inputs=paths["inputs"], outputs=paths["outputs"], rtol=rtol, atol=atol)
    return Graph(
        file=paths["file"], inputs=graph.inputs, outputs=graph.outputs, golden=golden, rows=graph.rows
    )


def _fields(draft: Draft, number: str) -> dict[str, Any]:
    """What the draft itself says in the manifest, as JSON values."""
    parts = {
        "text": draft.text,
        "encoder": draft.encoder,
        "quantization": draft.quantization,
        "image": draft.image,
        "table": draft.table,
        "series": draft.series,
        "scoring": draft.scoring,
        "provenance": draft.provenance,
    }
    return {
        "name": draft.name,
        "version": number,
        "task": draft.task,
        "family": draft.family,
        "capabilities": list(draft.capabilities),
        "description": draft.description,
        "licence": draft.licence,
        "quality": {name: measure.model_dump(mode="json") for name, measure in draft.quality.items()},
        **{name: part.model_dump(mode="json") if part else None for name, part in parts.items()},
    }


def _exporter(runs: Runs) -> dict[str, str]:
    versions: dict[str, str] = {}
    for run in runs.values():
        versions |= run.versions
    try:
        return versions | {"atelier": version("atelier")}
    except PackageNotFoundError:  # run from a source tree that was never installed
        return versions | {"atelier": "source"}


def _prove(package: Package, name: str, run: TorchRun, witness: Witness) -> None:
    graph = package.manifest.graphs[name]
    session = open_graph(package, name, device=Device("cpu"), threads=1, replay=False)
    pairs = list(zip(run.cases, run.outputs, strict=True))
    for figure in compare_graph(session, name, (graph.inputs, graph.outputs), pairs):
        witness.figure(figure)
