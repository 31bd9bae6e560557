"""The fresh process that turns one module into one ONNX graph: build, load weights, run in eager torch, export, write.

Run as `python -m model_store.export.torch_graph FOLDER`; files in FOLDER are its whole conversation with
`graph_process`. One graph per process: torch 2.13 freezes the time axis of a second LSTM or GRU it exports. Knows neither
packages nor a runtime.
"""

import importlib
import json
import pickle
import platform
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from safetensors.torch import load_model
from torch import nn

from model_store.export import graph_process
from model_store.export.cases import (
    SEED,
    Array,
    Case,
    at,
    bind,
    check_cases,
    only,
    random_cases,
    trace_example,
)
from model_store.export.draft import GraphDraft, Pair
from model_store.export.errors import ExportError, GraphFailed
from model_store.export.paired import Paired
from model_store.export.sampled import controls, sample, unsampled
from model_store.export.sampling import join
from model_store.export.stored import round_weights, store_halves
from model_store.manifest import Tensor

MOST_INLINE_BYTES = 1_610_612_736
"""Larger weights go into a file beside the graph: protobuf ends at 2 GiB, and copies of a graph are made."""
SMALL = 256
"""Bytes of a tensor that stays inside all the same: shapes are wanted before weights are read."""
DETAIL_LINES = 15
TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir", "safetensors")


class Entry(nn.Module):
    """One method of a module as a module of its own, returning a tuple in the order of `outputs` (or in its own, if empty)."""

    def __init__(self, module: nn.Module, method: str, outputs: Sequence[str]) -> None:
        """Raise GraphFailed if the module has no such method."""
        super().__init__()
        self.module = module
        self.outputs = tuple(outputs)
        call = module if method == "forward" else getattr(module, method, None)
        if not callable(call):
            raise GraphFailed(f"{type(module).__name__} has no method {method!r}")
        self.call = call if method != "forward" else None

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the method by position. Raises GraphFailed where it does not return tensors, or not `outputs`."""
        result = (self.call or self.module)(*tensors)
        return tuple(named_outputs(result, self.outputs).values())


def named_outputs(result: object, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Name what a module returned: a mapping by its own keys, a sequence by `names` (`output`, `output_1`, ... if empty)."""
    if isinstance(result, tuple) and hasattr(result, "_asdict"):  # named, and some of them not given
        result = {name: value for name, value in result._asdict().items() if value is not None}
    if isinstance(result, Mapping):
        found = {str(name): value for name, value in result.items()}
    else:
        values = list(result) if isinstance(result, tuple | list) else [result]
        made = ["output", *(f"output_{place}" for place in range(1, len(values)))]
        if names and len(names) != len(values):
            raise GraphFailed(f"the module returns {len(values)} outputs where {list(names)} are declared")
        found = dict(zip(names or made, values, strict=False))
    wrong = sorted(name for name, value in found.items() if not isinstance(value, torch.Tensor))
    if wrong:
        raise GraphFailed(f"the module's outputs {wrong} are no tensors")
    if names and set(names) != set(found):
        raise GraphFailed(f"the module returns {sorted(found)} where {sorted(names)} are declared")
    return {name: found[name] for name in names or found}


def resolve(spec: str) -> Callable[..., Any]:
    """Import `module:function`. Raises GraphFailed when there is no such thing."""
    name, _, attribute = spec.partition(":")
    try:
        found = getattr(importlib.import_module(name), attribute)
    except ModuleNotFoundError as error:
        raise GraphFailed(f"{spec!r} cannot be imported: {error}") from error
    except AttributeError as error:
        raise GraphFailed(f"module {name!r} has no {attribute!r}") from error
    return cast("Callable[..., Any]", found)


def build(factory: str, *source: Path) -> nn.Module:
    """Make the module, in evaluation mode. Raises GraphFailed if the factory makes something else."""
    module = resolve(factory)(*source)
    if not isinstance(module, nn.Module):
        raise GraphFailed(f"{factory} returned a {type(module).__name__}, not a torch.nn.Module")
    return module.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load exactly the module's own tensors. Raises GraphFailed when names or shapes differ, or there is more than tensors."""
    if not path.is_file():
        raise GraphFailed(f"the weights {path.name} do not exist")
    try:
        if path.suffix == ".safetensors":
            load_model(module, path, strict=True)
        else:
            module.load_state_dict(_state_dict(path), strict=True)
    except RuntimeError as error:  # torch lists missing and unexpected names and wrong shapes, line by line
        raise GraphFailed(f"the weights {path.name} do not fit: {_one_line(str(error))}") from error


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise GraphFailed(
            f"{path.name} holds more than tensors: save `module.state_dict()` and use that"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise GraphFailed(f"{path.name} is no state dict: save `module.state_dict()` and use that")
    return loaded


def join_pair(module: nn.Module, pair: Pair) -> nn.Module:
    """An encoder and its decoder as one module. Raises GraphFailed where there is no such decoder."""
    if ":" not in pair.decoder:
        return Paired(Entry(module, pair.encode, ()), Entry(module, pair.decoder, ()), pair.latent)
    decoder = build(pair.decoder)
    if pair.weights:
        load_weights(decoder, pair.weights)
    return Paired(Entry(module, pair.encode, ()), Entry(decoder, "forward", ()), pair.latent)


def run_case(entry: Entry, inputs: Sequence[Tensor], case: Case) -> dict[str, Array]:
    """Compute one case in eager torch: what the graph must reproduce."""
    # A module may write into its inputs (a cache): it gets its own copy.
    tensors = [torch.from_numpy(case[each.name].copy()) for each in inputs]
    with torch.no_grad():
        result = (entry.call or entry.module)(*tensors)
    return {name: value.numpy() for name, value in named_outputs(result, entry.outputs).items()}


def export(entry: Entry, graph: GraphDraft, data: Path | None = None) -> onnx.ModelProto:
    """Export with the named dimensions free and the declared signature; the debug data is left out.

    The weights are inside, or where they are too many in the file `data`. Raises GraphFailed without one.
    """
    shapes = tuple(
        {axis: size for axis, size in enumerate(t.shape) if isinstance(size, str)} for t in graph.inputs
    )
    program = torch.onnx.export(
        entry,
        tuple(torch.from_numpy(array) for array in trace_example(graph)),
        input_names=[each.name for each in graph.inputs],
        output_names=[each.name for each in graph.outputs],
        dynamic_shapes=(shapes,),
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise GraphFailed("torch.onnx.export returned nothing")
    return clean(program.model, graph, data)


def clean(model: onnx_ir.Model, graph: GraphDraft, data: Path | None = None) -> onnx.ModelProto:
    """Drop what only a debugger reads, which may be most of a small file, and declare the draft's shapes."""
    ClearMetadataAndDocStringPass()(model)
    model.graph.name = graph.method
    _yield_names(model)
    if graph.stored == "float16":
        store_halves(model)
    size = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if size > MOST_INLINE_BYTES:
        if data is None:
            raise GraphFailed(
                f"the graph's weights are {size / 2**30:.1f} GiB; a graph file holds at most 2 GiB"
            )
        model = onnx_ir.external_data.unload_from_model(
            model, data.parent, data.name, size_threshold_bytes=SMALL
        )
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:]
    declared = {each.name: each for each in (*graph.inputs, *graph.outputs)}
    for value in (*proto.graph.input, *proto.graph.output):
        shape = declared[value.name].shape
        value.type.tensor_type.ClearField("shape")
        for size_or_name in shape:
            place = value.type.tensor_type.shape.dim.add()
            if isinstance(size_or_name, str):
                place.dim_param = size_or_name
            else:
                place.dim_value = size_or_name
        value.type.tensor_type.shape.SetInParent()
    return proto


def _yield_names(model: onnx_ir.Model) -> None:
    """Rename values inside that the exporter gave the name of an input or output: `embedding` is an operator's as well."""
    ends = {*model.graph.inputs, *model.graph.outputs}
    taken = {value.name for value in ends}
    for node in model.graph:
        for value in node.outputs:
            if value.name in taken and value not in ends:
                value.name = f"{value.name}.inside"


def work(folder: Path, stage: Callable[[str], None], *, only_run: bool) -> None:
    """Do the job in `folder`: write every case's inputs and outputs, and unless `only_run` the graph."""
    graph = graph_process.read_job(folder)
    stage("build the module")
    source = (graph.source,) if graph.source else ()
    module = build(graph.factory, *source)
    oracle = build(graph.oracle, *source) if graph.oracle else module
    if graph.weights:
        stage("load the weights")
        for each in {id(module): module, id(oracle): oracle}.values():
            load_weights(each, graph.weights)
    if graph.stored == "float16":
        for each in {id(module): module, id(oracle): oracle}.values():
            round_weights(each)
    if graph.pair:
        module = oracle = join_pair(module, graph.pair)
    traced = unsampled(graph) if graph.sampled else graph
    names = [each.name for each in traced.outputs]
    stage("make example inputs")
    cases = resolve(graph.cases)(*source) if graph.cases else random_cases(traced)
    check_cases(traced, [only(traced.inputs, case) for case in cases] if graph.sampled else cases)
    for place, inputs in enumerate(cases):
        stage(f"run the module in torch at {at(bind(traced.inputs, inputs))}")
        outputs = run_case(Entry(oracle, graph.method, names), traced.inputs, inputs)
        if graph.sampled:
            logits = outputs.pop("logits")
            traced = unsampled(graph, logits.shape[-1])
            inputs = controls(logits, SEED + place) | inputs  # noqa: PLW2901 - what a case leaves to us
            outputs = sample(logits, inputs) | outputs
        np.savez_compressed(graph_process.inputs_file(folder, place), allow_pickle=False, **inputs)
        np.savez_compressed(graph_process.outputs_file(folder, place), allow_pickle=False, **outputs)
    if not only_run:
        stage("export with torch.onnx")
        exported = export(Entry(module, graph.method, names), traced, graph_process.data_file(folder))
        onnx.save_model(join(exported) if graph.sampled else exported, graph_process.graph_file(folder))
    versions = {name: version(name) for name in TOOLS} | {"python": platform.python_version()}
    report = {"versions": versions, "parameters": sum(each.numel() for each in module.parameters())}
    (folder / "report.json").write_text(json.dumps(report))


def failure(error: Exception, stage: str) -> dict[str, str]:
    """Say in one sentence what went wrong, and keep the last lines of the cause."""
    if isinstance(error, ExportError):
        return {"kind": type(error).__name__, "message": error.message, "detail": error.detail}
    root: BaseException = error
    while root.__cause__ is not None:  # torch wraps what happened in pages of advice
        root = root.__cause__
    message = f"could not {stage}: {type(root).__name__}: {_one_line(str(root))}"
    lines = "".join(traceback.format_exception(root, chain=False)).strip().splitlines()
    return {"kind": GraphFailed.__name__, "message": message, "detail": "\n".join(lines[-DETAIL_LINES:])}


def _one_line(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def main(arguments: Sequence[str]) -> int:
    """Run the job of a folder; a failure becomes `failure.json` there and exit status 1."""
    folder, stages = Path(arguments[0]), ["start"]

    def stage(name: str) -> None:
        stages.append(name)
        sys.stdout.write(f"{graph_process.STAGE_MARK}{name}\n")
        sys.stdout.flush()

    try:
        work(folder, stage, only_run="--only-run" in arguments)
    except Exception as error:  # noqa: BLE001 - the outer edge of this process: the parent tells the user
        (folder / "failure.json").write_text(json.dumps(failure(error, stages[-1])))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
