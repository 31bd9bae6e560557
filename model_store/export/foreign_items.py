"""A graph made elsewhere that scores or redraws items becomes a package: an autoencoder, or a detector such as Anomalib's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from model_store.export.calibration import read_items
from model_store.export.cases import Case
from model_store.export.detectors import Calibrated, check_fit
from model_store.export.draft import Draft, GraphDraft
from model_store.export.errors import DraftError
from model_store.export.foreign_graph import described
from model_store.export.foreign_pictures import Show
from model_store.export.foreign_run import run_graph
from model_store.export.item_roles import ADVICE, able, guess_outputs, picture_of
from model_store.export.options import Origin, infer_outputs
from model_store.export.publish import Runs
from model_store.export.witness import Witness
from model_store.labelled import Labelled
from model_store.manifest import Tensor

ROWS: Final = 3


def make_items(
    file: Path,
    model: ir.Model,
    said: Mapping[str, str],
    told: tuple[str, Origin, Path | None],
    place: tuple[Path, Witness, Show],
) -> tuple[Draft, Runs]:
    """Give the tensors their roles, run rows alone and together, join scores and calibrate by a file, if there is one.

    `told`: the package's name, where it comes from, and the file. Raises DraftError, ParityError.
    """
    (name, origin, calibration), (folder, witness, show) = told, place
    data = read_items(calibration) if calibration else None
    item = _input(model, said, data)
    if data:
        check_fit([item], data)
    witness.step("compare rows together with rows alone")
    run = run_graph(model, _cases(item, data), "items", folder, witness)
    outputs = infer_outputs([item], run.cases, run.outputs)
    roles = guess_outputs([item], outputs, said)
    values = (*model.graph.inputs, *model.graph.outputs)
    show(
        {str(each.name): (described(each), {item.name: "input", **roles}[str(each.name)]) for each in values}
    )
    outputs = [each.model_copy(update={"role": roles[each.name]}) for each in outputs]
    graph = "reconstruct" if "reconstruction" in roles.values() else "score"
    if graph == "score" and data is None:
        raise DraftError(ADVICE)
    low, high = (float(data.items.min()), float(data.items.max())) if data else (0.0, 1.0)
    draft = Draft(
        name=name,
        task="reconstruction" if graph == "reconstruct" else "anomaly-detection",
        family="autoencoder",
        capabilities=able(list(roles.values())),
        description=origin.description or f"graph made elsewhere that scores items, from {file.name}",
        licence=origin.licence,
        provenance=origin.provenance("atelier export onnx", run.parameters),
        graphs={graph: GraphDraft("", (item,), tuple(outputs))},
        image=picture_of(item.shape[1:]) if low >= 0 and high <= 1 else None,
    )
    if data is None:
        return draft, {graph: run}
    return Calibrated(graph, data, witness=witness)(draft, {graph: run})


def _input(model: ir.Model, said: Mapping[str, str], data: Labelled | None) -> Tensor:
    """The one input; sizes that the graph leaves open are those of the items."""
    names = [str(each.name) for each in (*model.graph.inputs, *model.graph.outputs)]
    unknown = sorted(said.keys() - set(names))
    if unknown:
        raise DraftError(f"--map names {', '.join(unknown)}; there are {', '.join(names)}")
    if len(model.graph.inputs) != 1:
        found = ", ".join(f"{each.name} {described(each)}" for each in model.graph.inputs)
        raise DraftError(f"a graph that scores or redraws items has one input, not {found}")
    [value] = model.graph.inputs
    shape = list(value.shape or ())
    if value.dtype != ir.DataType.FLOAT or len(shape) < 2 or isinstance(shape[0], int):
        raise DraftError(
            f"{value.name} {described(value)}: items are float32 and come in batches: export the graph with a first dimension that varies"
        )
    if data is not None and len(data.items.shape) == len(shape):
        shape[1:] = [
            given if isinstance(given, int) else found
            for given, found in zip(shape[1:], data.items.shape[1:], strict=True)
        ]
    if not all(isinstance(size, int) for size in shape[1:]):
        raise DraftError(f"{value.name} {described(value)}: sizes vary: --calibration data.npz tells them")
    return Tensor(
        name=str(value.name),
        role="input",
        dtype="float32",
        shape=("batch", *(size for size in shape[1:] if isinstance(size, int))),
    )


def _cases(item: Tensor, data: Labelled | None) -> list[Case]:
    """Made-up items in two batch sizes: none of the real ones leaves with the package."""
    low, high = (data.items.min(), data.items.max()) if data else (0.0, 1.0)
    shape = (ROWS, *map(int, item.shape[1:]))
    drawn = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
    return [{item.name: drawn}, {item.name: drawn[:1]}]
