"""Graphs that score or redraw items become calibrated detectors.

One way for graphs of any origin: outputs are brought into the shapes that are served, errors are joined where nothing scores,
and what the finished graph gives normal items becomes the calibration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model_store.export import graph_process, redrawn
from model_store.export.calibration import (
    PREFIX,
    QUANTILE,
    calibrate,
    measured,
    of_normal,
    read_items,
    scores_of,
)
from model_store.export.draft import Draft, GraphDraft
from model_store.export.errors import DraftError
from model_store.export.graph_process import TorchRun
from model_store.export.item_roles import SCORE, able, served
from model_store.export.parity import LIMITS, Figure, compare
from model_store.export.sampling import Nodes
from model_store.export.witness import NOBODY, Witness
from model_store.imaging import Image
from model_store.labelled import Labelled
from model_store.manifest import Tensor
from model_store.session import Session


@dataclass(frozen=True)
class Calibrated:
    """What `publish` does with a package whose graph `name` is proven: makes it score, and calibrates it by `data`."""

    name: str
    data: Labelled
    quantile: float = QUANTILE
    witness: Witness = NOBODY

    def __call__(self, draft: Draft, runs: Mapping[str, TorchRun]) -> tuple[Draft, dict[str, TorchRun]]:
        """The draft with its scores, and the runs with the graph that computes them. Raises DraftError, ParityError."""
        self.witness.step(f"score {len(self.data.items)} items of {self.data.file}")
        graph, run, session = finish(draft.graphs[self.name], runs[self.name], draft.image, self.witness)
        scores = scores_of(session, (graph.inputs, graph.outputs), self.data.items)
        words = f"normal items of {self.data.file}, given at export"
        scoring, files = calibrate(of_normal(scores, self.data), next(iter(scores)), words, self.quantile)
        roles = [each.role for each in graph.outputs]
        made = replace(
            draft,
            capabilities=able(roles, decodes="decode" in draft.graphs),
            graphs={**draft.graphs, self.name: graph},
            files={**draft.files, **files},
            scoring=scoring,
            quality={**draft.quality, **measured(scores, self.data.anomalous, self.data.file)},
        )
        return made, {**runs, self.name: run}


def calibrated(draft: Draft, path: Path, witness: Witness) -> Calibrated:
    """How a draft's graph that reads items is calibrated by a file. Raises DraftError, also where there is no such graph."""
    name = next((each for each in ("score", "reconstruct") if each in draft.graphs), None)
    if name is None:
        raise DraftError(f"a model for {draft.task} has no scores that a --calibration could be of")
    data = read_items(path)
    check_fit(draft.graphs[name].inputs, data)
    return Calibrated(name, data, witness=witness)


def check_fit(inputs: Sequence[Tensor], data: Labelled) -> None:
    """Raise DraftError unless the items have the shape that these inputs take."""
    item = next(each for each in inputs if each.role == "input")
    if item.shape[1:] != data.items.shape[1:]:
        raise DraftError(
            f"{data.file} has items of shape {list(data.items.shape[1:])}, the model takes {list(item.shape[1:])}"
        )


def finish(
    graph: GraphDraft, run: TorchRun, image: Image | None, witness: Witness = NOBODY
) -> tuple[GraphDraft, TorchRun, Session]:
    """Leave what is served, in the shapes it is served in, and join errors where nothing scores; the golden run follows.

    Raises DraftError, ParityError.
    """
    path, case = graph_process.graph_file(run.folder), run.cases[0]
    if graph_process.data_file(run.folder).exists():
        raise DraftError("the graph's weights are too many to be kept inside of it, where scores are joined")
    model = onnx.load(path)
    outputs = _reshaped(model, [each for each in graph.outputs if served(each.role)])
    by_role = {each.role: each for each in (*graph.inputs, *outputs)}
    joined: list[Tensor] = []
    if not any(role.startswith(PREFIX) for role in by_role):
        joined = _joined(model, by_role, pictures=image is not None)
    outputs += joined
    _declare(model, outputs)
    onnx.save_model(model, path)
    session, names = Session(path.read_bytes()), [each.name for each in outputs]
    found = dict(zip(names, session.run(case, names), strict=True))
    if joined:
        right = _expected(by_role, {**case, **found}, pictures=image is not None)
        for name in (each.name for each in joined):
            error = compare(right[name], found[name], graph=graph.method, output=name, sizes={})
            witness.figure(Figure("errors", name, len(found[name]), error, LIMITS["float32"]))
    np.savez_compressed(graph_process.outputs_file(run.folder, 0), allow_pickle=False, **found)
    return replace(graph, outputs=tuple(outputs)), replace(run, cases=[case], outputs=[found]), session


def _joined(model: onnx.ModelProto, by_role: Mapping[str, Tensor], *, pictures: bool) -> list[Tensor]:
    """Scores of the reconstruction, or where there is none of the map."""
    if "reconstruction" not in by_role:
        return [redrawn.join_maximum(model, by_role["error_map"], SCORE)]
    ends = by_role["input"], by_role["reconstruction"]
    return redrawn.join(model, *ends, pictures=pictures, mapped=by_role.get("error_map"))


def _expected(
    by_role: Mapping[str, Tensor], arrays: Mapping[str, NDArray[Any]], *, pictures: bool
) -> dict[str, NDArray[np.float32]]:
    """What `_joined` computes of these inputs and outputs."""
    if "reconstruction" not in by_role:
        mapped = arrays[by_role["error_map"].name]
        return {SCORE: mapped.reshape(len(mapped), -1).max(1)}
    item, made = (arrays[by_role[role].name] for role in ("input", "reconstruction"))
    drawn = arrays[by_role["error_map"].name] if "error_map" in by_role else None
    return redrawn.expected(item, made, pictures=pictures, mapped=drawn)


def _reshaped(model: onnx.ModelProto, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Scores [batch, 1] become [batch], maps [batch, height, width] get a channel, in place."""
    nodes, done = Nodes("served"), []
    for each in outputs:
        if each.role.startswith(PREFIX) and len(each.shape) == 2:
            name = nodes("Reshape", each.name, nodes.ints(-1))
            done.append(each.model_copy(update={"name": name, "shape": each.shape[:1]}))
        elif each.role == "error_map" and len(each.shape) == 3:
            name = nodes("Unsqueeze", each.name, nodes.ints(1))
            done.append(each.model_copy(update={"name": name, "shape": (each.shape[0], 1, *each.shape[1:])}))
        else:
            done.append(each)
    model.graph.node.extend(nodes.nodes)
    return done


def _declare(model: onnx.ModelProto, outputs: Sequence[Tensor]) -> None:
    """Declare exactly these outputs."""
    del model.graph.output[:]
    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
    model.graph.output.extend(
        helper.make_tensor_value_info(each.name, types[each.dtype], list(each.shape)) for each in outputs
    )
