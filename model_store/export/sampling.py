"""The sampler as ONNX nodes, joined to any graph with `logits`: token ids and log-probabilities leave it, not the vocabulary.

Written node by node and not traced, because its speed is in which passes over the vocabulary it can leave out. What it
must compute stands in `model_store.export.sampled`, in numpy.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_store.export.capture import replace_gathers
from model_store.export.errors import GraphFailed
from model_store.export.sampled import COLDEST, HEAD, INPUTS, MASKED, OUTPUTS
from model_store.manifest import Tensor

LOGITS: Final = "logits"
OPSET: Final = 18
"""Reductions take their axes as an input, bits can be masked."""

_BLOCK: Final = 256
_HALVINGS: Final = 20
_TYPES: Final = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}


class Nodes:
    """Nodes of one graph in order; calling it adds one and returns the name of its first output."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []

    def __call__(self, operator: str, *inputs: str, into: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node writing `into` these names, or into one of its own."""
        names = list(into) or [self.name(operator)]
        made = helper.make_node(operator, list(inputs), names, name=self.name(operator), **attributes)
        self.nodes.append(made)
        return names[0]

    def name(self, kind: str) -> str:
        """A name that nothing else has."""
        return f"{self.prefix}/{kind}_{len(self.nodes)}"

    def constant(self, value: Any, dtype: str) -> str:
        """A constant; folded into the graph when it is opened."""
        name = self.name("constant")
        self("Constant", into=[name], value=numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        """A vector of i64."""
        return self.constant(values, "int64")

    def number(self, value: float) -> str:
        """A scalar f32."""
        return self.constant(value, "float32")

    def column(self, row: str) -> str:
        """[batch] -> [batch, 1]."""
        return self("Unsqueeze", row, self.ints(1))

    def branch(self, condition: str, then: "Nodes", then_out: str, other: "Nodes", other_out: str) -> str:
        """The value of one of two subgraphs, of which only one runs."""
        graphs = [
            helper.make_graph(
                nodes.nodes, nodes.prefix, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)]
            )
            for nodes, out in ((then, then_out), (other, other_out))
        ]
        return self("If", condition, then_branch=graphs[0], else_branch=graphs[1])


def join(model: onnx.ModelProto, *, branches: bool = True) -> onnx.ModelProto:
    """Put the sampler behind output `logits` [batch, selected, vocabulary], in place. Returns the model.

    With `branches` what no row needs is not computed; without, every run does the same work on the device alone, which
    captured CUDA graphs require. Raises GraphFailed where there are no such logits.
    """
    vocabulary = _vocabulary(model)
    nodes = Nodes("sampler")
    logits = nodes("Cast", LOGITS, to=TensorProto.FLOAT) if _half(model) else LOGITS
    _write(nodes, logits, vocabulary, branches=branches)
    graph = model.graph
    if not branches:
        replace_gathers(graph)
    graph.node.extend(nodes.nodes)
    graph.input.extend(_value(tensor) for tensor in INPUTS)
    kept = [output for output in graph.output if output.name != LOGITS]
    del graph.output[:]
    graph.output.extend([*(_value(tensor) for tensor in OUTPUTS), *kept])
    _raise_opset(model)
    return model


def _vocabulary(model: onnx.ModelProto) -> int:
    for output in model.graph.output:
        if output.name == LOGITS:
            shape = output.type.tensor_type.shape.dim
            if len(shape) == 3 and shape[2].dim_value > 0:
                return int(shape[2].dim_value)
    raise GraphFailed("a graph to sample from needs an output 'logits' [batch, selected, <vocabulary>]")


def _half(model: onnx.ModelProto) -> bool:
    kinds = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
    return bool(kinds[LOGITS] != TensorProto.FLOAT)


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], list(tensor.shape))


def _raise_opset(model: onnx.ModelProto) -> None:
    for opset in model.opset_import:
        if opset.domain == "" and opset.version < OPSET:
            raise GraphFailed(f"a graph to sample from needs opset {OPSET} or newer, not {opset.version}")


def _write(n: Nodes, logits: str, vocabulary: int, *, branches: bool) -> None:
    """All of it: outputs `token`, `logprob`, `top_token`, `top_logprob`."""
    logprobs = n("LogSoftmax", logits, axis=-1)
    edited = _edited(n, n("Gather", logits, n.constant(-1, "int64"), axis=1), vocabulary, branches=branches)
    size = n("Shape", "candidates")
    n("TopK", edited, size, into=["sampler/value", "sampler/id"], axis=-1)
    drawn = _draw(n, edited, vocabulary, branches=branches)
    cold = n("Equal", "temperature", n.number(0))
    greedy = n("Gather", "sampler/id", n.constant(0, "int64"), axis=1)
    token = n.column(n("Where", cold, greedy, drawn))
    forced = n("GreaterOrEqual", "target", n.constant(0, "int64"))
    n("Where", forced, "target", token, into=["token"])
    wide = n("Unsqueeze", "token", n.ints(2))
    n("Squeeze", n("GatherElements", logprobs, wide, axis=2), n.ints(2), into=["logprob"])
    n("TopK", logprobs, n("Shape", "alternatives"), into=["top_logprob", "top_token"], axis=-1)


def _edited(n: Nodes, last: str, vocabulary: int, *, branches: bool) -> str:
    """Logits [batch, vocabulary] after edits and masks. One chain of single readers: written over in place."""
    old = n("GatherElements", last, "edit_token", axis=1)
    positive = n("Greater", old, n.number(0))
    scaled = n("Where", positive, n("Div", old, "edit_scale"), n("Mul", old, "edit_scale"))
    last = n("ScatterElements", last, "edit_token", n("Add", scaled, "edit_add"), axis=1)
    words = -(-vocabulary // 32)
    bits = _bits(n) if branches else _divided(n)
    flat = n("Reshape", bits, n.ints(0, words * 32))
    allowed = n("Cast", n("Slice", flat, n.ints(0), n.ints(vocabulary), n.ints(1)), to=TensorProto.BOOL)
    most = n("Where", allowed, n.number(np.inf), n.number(MASKED))
    return n("ScatterND", last, n("Unsqueeze", "mask_row", n.ints(1)), most, reduction="min")


def _bits(n: Nodes) -> str:
    """Bits of the mask [masked, words, 32]: not 0 where they are set."""
    bit = n.constant((1 << np.arange(32, dtype=np.uint32)).view(np.int32), "int32")
    return n("BitwiseAnd", n("Unsqueeze", "mask", n.ints(2)), bit)


def _divided(n: Nodes) -> str:
    """The same by division: ONNX Runtime has no bitwise operators on CUDA, and a captured graph has no step elsewhere."""
    word = n("Cast", "mask", to=TensorProto.INT64)
    negative = n("Cast", n("Less", word, n.constant(0, "int64")), to=TensorProto.INT64)
    word = n("Unsqueeze", n("Add", word, n("Mul", negative, n.constant(1 << 32, "int64"))), n.ints(2))
    here, above = (n("Div", word, n.constant(1 << np.arange(low, low + 32), "int64")) for low in (0, 1))
    return n("Sub", here, n("Mul", above, n.constant(2, "int64")))


def _draw(n: Nodes, edited: str, vocabulary: int, *, branches: bool) -> str:
    """Token ids i64 [batch] by the row's random number."""
    most = n("Slice", "sampler/value", n.ints(0), n.ints(1), n.ints(1))
    heat = n.column(n("Max", "temperature", n.number(COLDEST)))
    weight = n("Exp", n("Div", n("Sub", "sampler/value", most), heat))
    rank = n("Sub", n("CumSum", n("ConstantOfShape", n("Shape", "candidates"), value=_one()), n.constant(0, "int64")), n.constant(1, "int64"))  # fmt: skip
    top_k = n.column("top_k")
    unlimited = n("Equal", top_k, n.constant(0, "int64"))
    weight = n("Where", n("Or", unlimited, n("Less", rank, top_k)), weight, n.number(0))
    one = n.constant(1, "int64")
    reached = n("CumSum", weight, one)
    before = n("CumSum", weight, one, exclusive=1)
    limited_mass = n("Gather", reached, n.constant(-1, "int64"), axis=1)
    warm = n("Greater", "temperature", n.number(0))
    whole = n("And", warm, n("Equal", "top_k", n.constant(0, "int64")))  # rows whose mass is the vocabulary's
    mass = _where_any(n, whole, _mass, [edited, most, heat], n.column(limited_mass), branches=branches)
    mass = n("Where", unlimited, mass, n.column(limited_mass))
    wanted = n("Mul", n.column("top_p"), mass)
    first = n("Equal", rank, n.constant(0, "int64"))
    inside = n("Or", n("Less", before, wanted), first)
    likely = n("GreaterOrEqual", weight, n.column("min_p"))
    kept = n("Where", n("And", inside, likely), weight, n.number(0))
    cumulated = n("CumSum", kept, one)
    total = n("Gather", cumulated, n.ints(-1), axis=1)
    at = n("Mul", n.column("uniform"), total)
    passed = _count(n, n("LessOrEqual", cumulated, at), 1)
    last = n("Sub", _count(n, n("Greater", kept, n.number(0)), 1), one)
    place = n("Min", passed, last)
    chosen = n("GatherElements", "sampler/id", place, axis=1)
    # Where the first HEAD candidates are not all that the row keeps, the whole vocabulary is looked at.
    head = min(HEAD, vocabulary) - 1
    # Not by arithmetic on a shape, which would be done on the host.
    at_head = n("Min", n("Gather", rank, n.ints(-1)), n.ints(head))
    enough = n("GreaterOrEqual", n("Gather", reached, at_head, axis=1), wanted)
    rare = n("Less", n("Gather", weight, at_head, axis=1), n.column("min_p"))
    settled = n("Or", n("Not", n.column(whole)), n("Or", enough, rare))
    open_rows = n("Squeeze", n("Not", settled), n.ints(1))
    at_most = n("Gather", weight, at_head, axis=1)
    parts = [edited, most, heat, n.column("top_p"), n.column("min_p"), n.column("uniform"), at_most]
    as_number = n("Cast", chosen, to=TensorProto.FLOAT)
    # As float32 only because a branch gives one type for all: ids below 2^24 are exact in it.
    drawn = _where_any(n, open_rows, _from_all, parts, as_number, branches=branches, vocabulary=vocabulary)
    return n("Cast", n("Squeeze", drawn, n.ints(1)), to=TensorProto.INT64)


def _one() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(1, np.int64), "one")


def _count(n: Nodes, flags: str, axis: int) -> str:
    return n("ReduceSum", n("Cast", flags, to=TensorProto.INT64), n.ints(axis), keepdims=1)


def _where_any(
    n: Nodes, rows: str, compute: Any, parts: Sequence[str], otherwise: str, *, branches: bool, **more: int
) -> str:
    """`otherwise` [batch, 1] with `compute(parts)` in the rows that are flagged; computed for these rows only."""
    if not branches:
        return n("Where", n.column(rows), compute(n, parts, branches=branches, **more), otherwise)
    then, other = Nodes(n.name("some")), Nodes(n.name("none"))
    index = then("Transpose", then("NonZero", rows))  # [rows, 1]
    picked = [then("GatherND", part, index) for part in parts]
    found = then("ScatterND", otherwise, index, compute(then, picked, branches=branches, **more))
    some = n("Cast", n("ReduceMax", n("Cast", rows, to=TensorProto.INT32), keepdims=0), to=TensorProto.BOOL)
    return n.branch(some, then, found, other, other("Identity", otherwise))


def _weights(n: Nodes, parts: Sequence[str]) -> str:
    edited, most, heat = parts[:3]
    return n("Exp", n("Div", n("Sub", edited, most), heat))


def _mass(n: Nodes, parts: Sequence[str], *, branches: bool) -> str:  # noqa: ARG001 - as `_from_all`
    """Sum of the weights of the whole vocabulary [rows, 1]; the most probable token has weight 1."""
    return n("ReduceSum", _weights(n, parts), n.ints(1), keepdims=1)


def _from_all(n: Nodes, parts: Sequence[str], *, branches: bool, vocabulary: int) -> str:
    """Token ids [rows, 1], as f32, from the whole vocabulary in the order of its ids: first the block, then the token in it."""
    top_p, min_p, uniform, at_most = parts[3:]
    weight = _weights(n, parts)
    partial = n("Squeeze", n("Less", top_p, n.number(1)), n.ints(1))
    everything = n("Sub", top_p, top_p)
    nucleus = _where_any(
        n, partial, _nucleus, [weight, top_p, at_most], everything, branches=branches, vocabulary=vocabulary
    )
    least = n("Max", nucleus, min_p)
    kept = n("Where", n("GreaterOrEqual", weight, least), weight, n.number(0))
    blocks = -(-vocabulary // _BLOCK)
    padding = blocks * _BLOCK - vocabulary
    if padding:
        kept = n("Pad", kept, n.ints(0, 0, 0, padding))
    table = n("Reshape", kept, n.ints(0, blocks, _BLOCK))
    sums = n("ReduceSum", table, n.ints(2), keepdims=0)
    block, before, total = _place(n, sums, uniform, None)
    index = n("Unsqueeze", block, n.ints(2))
    wide = n("Expand", index, n.ints(1, 1, _BLOCK))
    inner = n("Squeeze", n("GatherElements", table, wide, axis=1), n.ints(1))
    place, _, _ = _place(n, inner, uniform, (before, total))
    token = n("Add", n("Mul", block, n.constant(_BLOCK, "int64")), place)
    return n("Cast", token, to=TensorProto.FLOAT)


def _place(n: Nodes, parts: str, uniform: str, outer: tuple[str, str] | None) -> tuple[str, str, str]:
    """Where `uniform` falls in the running sum of [rows, n]: place [rows, 1], the sum before it, the sum of all.

    `outer` is the sum before these parts, and the sum that `uniform` is a share of. Never a place without weight.
    """
    one = n.constant(1, "int64")
    reached = n("CumSum", parts, one)
    if outer:
        reached = n("Add", reached, outer[0])
    end = n("Gather", reached, n.ints(-1), axis=1)
    total = outer[1] if outer else end
    passed = _count(n, n("LessOrEqual", reached, n("Mul", uniform, total)), 1)
    place = n("Min", passed, _count(n, n("Less", reached, end), 1))  # the last one that adds anything
    before = n("GatherElements", n("CumSum", parts, one, exclusive=1), place, axis=1)
    return place, before, total


def _nucleus(n: Nodes, parts: Sequence[str], *, branches: bool, vocabulary: int) -> str:  # noqa: ARG001 - as `_from_all`
    """The weight [rows, 1] from which on all weights sum to `top_p` of all: by halving its logarithm's range.

    Sorting a vocabulary takes several times as long. It lies below `at_most`; and all that is lighter than an equal share of
    what may be left out can be left out.
    """
    weight, top_p, at_most = parts
    mass = n("ReduceSum", weight, n.ints(1), keepdims=1)
    wanted = n("Mul", top_p, mass)
    least = n("Div", n("Sub", mass, wanted), n.number(vocabulary))
    low, high = n("Log", n("Max", least, n.number(1e-30))), n("Log", n("Max", at_most, n.number(1e-30)))
    for _ in range(_HALVINGS):
        middle = n("Mul", n("Add", low, high), n.number(0.5))
        above = n("Where", n("GreaterOrEqual", weight, n("Exp", middle)), weight, n.number(0))
        fits = n("GreaterOrEqual", n("ReduceSum", above, n.ints(1), keepdims=1), wanted)
        low, high = n("Where", fits, middle, low), n("Where", fits, high, middle)
    return n("Exp", low)
