"""An encoder and a decoder that were made elsewhere, each in a file, as the graphs of one autoencoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from onnx import TensorProto, ValueInfoProto, compose, helper

from model_store.export import graph_process
from model_store.export.draft import Draft, GraphDraft, tensor
from model_store.export.errors import DraftError
from model_store.export.foreign_run import run_graph
from model_store.export.options import infer_outputs
from model_store.export.publish import Runs
from model_store.export.sampling import Nodes
from model_store.export.witness import Witness

DECODE: Final = "decode"


def join_pair(encoder: ir.Model, decoder: ir.Model, said: Mapping[str, str]) -> tuple[ir.Model, ir.Model]:
    """The graph from an item to `reconstruction` and `latent` [batch, n], and the one from such a `latent` to `output`.

    `said` tells which of several outputs of the encoder is the latent. Raises DraftError.
    """
    first = compose.add_prefix(_proto(encoder), "encoder/", rename_inputs=False)
    second = compose.add_prefix(_proto(decoder), "decoder/")
    latent = next((f"encoder/{name}" for name, role in said.items() if role == "latent"), "")
    codes = [each for each in first.graph.output if latent in {"", each.name}]
    code, source = _only(codes, "the encoder's latent"), _only(second.graph.input, "the decoder's input")
    drawn = _only(second.graph.output, "the decoder's output")
    shape = _row(source) or _row(code)
    if not shape:
        raise DraftError(
            "neither the encoder nor the decoder says how large a latent is: export one with fixed sizes"
        )
    if _row(source) and _row(code) and _row(source) != _row(code):
        raise DraftError(
            f"the encoder gives latents of shape {list(_row(code))}, the decoder takes {list(_row(source))}"
        )
    first.ir_version = second.ir_version = max(first.ir_version, second.ir_version)
    try:
        joined = compose.merge_models(
            first, second, [(code.name, source.name)], outputs=[code.name, drawn.name]
        )
    except ValueError as error:
        raise DraftError(f"encoder and decoder do not fit: {error!s:.200}") from error
    ends = Nodes("pair")
    ends("Flatten", code.name, into=["latent"], axis=1)
    ends("Identity", drawn.name, into=["reconstruction"])
    joined.graph.node.extend(ends.nodes)
    _declare(joined, {"latent": ("batch", math.prod(shape)), "reconstruction": ("batch", *_row(drawn))})
    _take_flat(second, source, drawn, shape)
    return ir.from_proto(joined), ir.from_proto(second)


def with_decoder(
    draft: Draft, runs: Runs, decoder: ir.Model, folder: Path, witness: Witness
) -> tuple[Draft, Runs]:
    """The draft with a graph `decode`, compared on latents of the graph that there is. Raises DraftError, ParityError."""
    [run] = runs.values()
    codes, place = run.outputs[0]["latent"], folder / DECODE
    place.mkdir()
    made = run_graph(decoder, [{"latent": codes}, {"latent": codes[:1]}], DECODE, place, witness)
    if graph_process.data_file(place).exists():
        raise DraftError("the decoder's weights are too many to be kept inside of its graph")
    latent = tensor("latent", "float32", "batch", codes.shape[1])
    graph = GraphDraft("", (latent,), tuple(infer_outputs([latent], made.cases, made.outputs)))
    able = (*draft.capabilities, "decode", "interpolate")
    return replace(draft, capabilities=able, graphs={**draft.graphs, DECODE: graph}), {**runs, DECODE: made}


def _proto(model: ir.Model) -> onnx.ModelProto:
    return ir.to_proto(ir.external_data.load_to_model(model))


def _only(values: Sequence[ValueInfoProto], what: str) -> ValueInfoProto:
    if len(values) != 1:
        names = ", ".join(each.name.partition("/")[2] for each in values) or "none"
        raise DraftError(f"{what} is one tensor, not {names}: say which with --map NAME:latent")
    return values[0]


def _row(value: ValueInfoProto) -> tuple[int, ...]:
    """Shape without the batch; empty where any of it varies."""
    sizes = tuple(each.dim_value for each in value.type.tensor_type.shape.dim)[1:]
    return sizes if all(sizes) else ()


def _take_flat(
    decoder: onnx.ModelProto, source: ValueInfoProto, drawn: ValueInfoProto, shape: tuple[int, ...]
) -> None:
    """Let the decoder take `latent` [batch, n] and give `output`."""
    ends = Nodes("pair")
    ends("Reshape", "latent", ends.ints(-1, *shape), into=[source.name])
    decoder.graph.node.extend([helper.make_node("Identity", [drawn.name], ["output"])])
    for place, node in enumerate(ends.nodes):
        decoder.graph.node.insert(place, node)
    row = _row(drawn)
    del decoder.graph.input[:]
    decoder.graph.input.append(_described("latent", ("batch", math.prod(shape))))
    _declare(decoder, {"output": ("batch", *row)})


def _declare(model: onnx.ModelProto, outputs: Mapping[str, tuple[int | str, ...]]) -> None:
    del model.graph.output[:]
    model.graph.output.extend(_described(name, shape) for name, shape in outputs.items())


def _described(name: str, shape: tuple[int | str, ...]) -> ValueInfoProto:
    """A float32 value; of a shape that is not known, none is told."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape) if len(shape) > 1 else None)
