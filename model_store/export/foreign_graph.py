"""A decoder graph made elsewhere becomes the `step` graph: roles of its tensors, then the inputs that a server has.

Knows ONNX and names that exporters use; opens no session.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from model_store.export.errors import DraftError
from model_store.export.hf.job import Layers, past_names, present_names

MASK: Final = "attention_mask"
POSITIONS: Final = "position_ids"
OWN: Final = ("input_ids", "select", "seqlens_k", "total_sequence_length")
ROLES: Final = (*OWN, MASK, POSITIONS, "logits")
_STATE: Final = re.compile(
    r"(?P<place>\d+).*?(?P<part>key|value|k|v)$|(?P<part2>key|value|k|v)\D*(?P<place2>\d+)$", re.IGNORECASE
)
_IDS: Final = ("input_ids", "tokens", "ids", "input")
_HEADS: Final = ("MatMul", "MatMulNBits")


def guess_roles(model: ir.Model, said: Mapping[str, str]) -> dict[str, str]:
    """Role of every input and output by name. Raises DraftError, with what to say, for one that cannot be guessed."""
    names = [str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)]
    unknown = sorted(said.keys() - set(names))
    if unknown:
        raise DraftError(f"--map names {', '.join(unknown)}; there are {', '.join(names)}")
    roles = {}
    for values, guess in ((model.graph.inputs, _input_role), (model.graph.outputs, _output_role)):
        for value in values:
            role = said.get(str(value.name)) or guess(str(value.name))
            if role is None:
                raise DraftError(
                    f"the role of {value.name} {described(value)} cannot be guessed: say --map {value.name}:ROLE, where a role is one of "
                    f"{', '.join(ROLES)}, past_key_values.N.key, past_key_values.N.value, present.N.key, present.N.value"
                )
            roles[str(value.name)] = role
    _check_roles(model, roles)
    return roles


def described(value: ir.Value) -> str:
    """Type and shape: `FLOAT[batch, 3]`."""
    shape = "?" if value.shape is None else ", ".join(map(str, value.shape))
    return f"{value.dtype.name if value.dtype else '?'}[{shape}]"


def _input_role(name: str) -> str | None:
    if name in ROLES[:-1]:
        return name
    if name in _IDS:
        return "input_ids"
    return _state_role(name, "past_key_values") if "past" in name or "cache" in name else None


def _output_role(name: str) -> str | None:
    if name == "logits" or name.startswith("present."):
        return _state_role(name, "present") if name != "logits" else name
    return _state_role(name, "present") if re.search("present|cache|past", name) else None


def _state_role(name: str, prefix: str) -> str | None:
    found = _STATE.search(name)
    if found is None:
        return None
    part = (found["part"] or found["part2"]).lower()
    return f"{prefix}.{int(found['place'] or found['place2'])}.{'key' if part.startswith('k') else 'value'}"


def _check_roles(model: ir.Model, roles: Mapping[str, str]) -> None:
    given = list(roles.values())
    twice = sorted({role for role in given if given.count(role) > 1})
    if twice:
        raise DraftError(f"two tensors have the role {', '.join(twice)}: give one of them another with --map")
    missing = [role for role in ("input_ids", "logits") if role not in given]
    if missing:
        raise DraftError(f"no tensor has the role {', '.join(missing)}: say which it is with --map name:role")
    count = sum(role.startswith("past_key_values.") for role in given) // 2
    needed = [*past_names(count), *present_names(count)]
    if not count or not set(needed) <= set(given):
        raise DraftError(
            f"the state is incomplete: {', '.join(sorted(set(needed) - set(given))[:4]) or 'there is none'}; "
            "a decoder needs past_key_values.N.key and .value, and present.N.key and .value, of every layer"
        )
    operators = {node.op_type for node in model.graph}
    if "GroupQueryAttention" not in operators:
        raise DraftError(
            "the graph has no GroupQueryAttention: its cache grows with every token, where a server's stays in place; "
            "make it with onnxruntime-genai's model builder, or `atelier export hf` the original directory"
        )


def adapt(model: ir.Model, roles: Mapping[str, str]) -> Layers:
    """Give the graph the `step` graph's inputs, in place: what it took beside them is computed from these. Returns the caches.

    Raises DraftError for tensors of another type or rank than their role has.
    """
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.name = roles[str(value.name)]
    by_role = {str(value.name): value for value in model.graph.inputs}
    made: list[ir.Node] = []
    for name, dtype, axes in (
        ("seqlens_k", ir.DataType.INT32, 1), ("total_sequence_length", ir.DataType.INT32, 0), ("select", ir.DataType.INT64, 2),
    ):  # fmt: skip
        if name not in by_role:
            shape: list[str] = [["batch", "selected"][axis] for axis in range(axes)]
            by_role[name] = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
            model.graph.inputs.append(by_role[name])
            if name == "select":
                made += _select(model, by_role[name])
    if MASK in by_role:
        made += _replace(model, by_role.pop(MASK), _mask(by_role))
    if POSITIONS in by_role:
        made += _replace(model, by_role.pop(POSITIONS), _positions(by_role))
    made += _widen(by_role["input_ids"])
    first = next(iter(model.graph))
    model.graph.insert_before(
        first, [each for each in made if each.op_type != "GatherND" and each.graph is None]
    )
    RemoveUnusedNodesPass()(model)
    return _declare(model)


class _Nodes:
    """Nodes in order; each call adds one of a single output and returns that."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.nodes = prefix, list[ir.Node]()

    def __call__(self, operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(operator, list(inputs), attributes, name=f"{self.prefix}/{operator}_{len(self.nodes)}")
        node.outputs[0].name = f"{self.prefix}/{operator}_{len(self.nodes)}_out"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, value: Iterable[int] | int) -> ir.Value:
        """An i64 constant."""
        tensor = ir.tensor(np.array(value, np.int64))
        node = ir.node("Constant", [], {"value": tensor}, name=f"{self.prefix}/constant_{len(self.nodes)}")
        node.outputs[0].name = f"{self.prefix}/constant_{len(self.nodes)}_out"
        self.nodes.append(node)
        return node.outputs[0]


def _mask(by_role: Mapping[str, ir.Value]) -> _Nodes:
    """i64 [batch, total]: 1 at each row's tokens."""
    n = _Nodes(MASK)
    total = n("Cast", by_role["total_sequence_length"], to=int(ir.DataType.INT64))
    places = n("Range", n.constant(0), total, n.constant(1))
    last = n("Unsqueeze", n("Cast", by_role["seqlens_k"], to=int(ir.DataType.INT64)), n.constant([1]))
    n("Cast", n("LessOrEqual", places, last), to=int(ir.DataType.INT64))
    return n


def _positions(by_role: Mapping[str, ir.Value]) -> _Nodes:
    """i64 [batch, time]: where each new token stands. Padded rows of a first prompt start at 0, too."""
    n = _Nodes(POSITIONS)
    time = n("Gather", n("Shape", by_role["input_ids"]), n.constant(1))
    one = n.constant(1)
    length = n("Add", n("Cast", by_role["seqlens_k"], to=int(ir.DataType.INT64)), one)
    start = n("Max", n("Sub", length, time), n.constant(0))
    n("Add", n("Unsqueeze", start, n.constant([1])), n("Range", n.constant(0), time, one))
    return n


def _replace(model: ir.Model, value: ir.Value, nodes: _Nodes) -> list[ir.Node]:
    """Let what the nodes compute last stand for an input, in its type."""
    last = nodes.nodes[-1].outputs[0]
    if value.dtype not in {None, ir.DataType.INT64}:
        last = nodes("Cast", last, to=int(value.dtype or 0))
    value.replace_all_uses_with(last)
    model.graph.inputs.remove(value)
    return nodes.nodes


def _widen(ids: ir.Value) -> list[ir.Node]:
    """Token ids come as i64, whatever the graph takes."""
    if ids.dtype == ir.DataType.INT64:
        return []
    n = _Nodes("input_ids")
    readers = [(node, place) for node, place in ids.uses() if node.graph is not None]
    narrow = n("Cast", ids, to=int(ids.dtype or ir.DataType.INT64))
    ids.dtype = ir.DataType.INT64
    for node, place in readers:
        node.replace_input_with(place, narrow)
    return n.nodes


def _select(model: ir.Model, select: ir.Value) -> list[ir.Node]:
    """Only the selected positions reach the head, or, where no head is found, leave the graph."""
    logits = next(value for value in model.graph.outputs if value.name == "logits")
    head = logits.producer()
    if head is None:
        raise DraftError("the logits are an input of the graph")
    last = ir.node("Constant", [], {"value": ir.tensor(np.array([-1]))}, name="select/axis")
    wide = ir.node("Unsqueeze", [select, last.outputs[0]], name="select/wide")
    before = head.op_type in _HEADS and head.inputs[0] is not None
    source = head.inputs[0] if before else logits
    gather = ir.node("GatherND", [source, wide.outputs[0]], {"batch_dims": 1}, name="select/gather")
    for node in (last, wide, gather):
        node.outputs[0].name = f"{node.name}_out"
    if before:
        model.graph.insert_before(head, [last, wide, gather])
        head.replace_input_with(0, gather.outputs[0])
    else:
        model.graph.insert_after(head, [last, wide, gather])
        gather.outputs[0].type, gather.outputs[0].shape = logits.type, logits.shape
        logits.name, gather.outputs[0].name = "select/all", "logits"
        model.graph.outputs[list(model.graph.outputs).index(logits)] = gather.outputs[0]
    return []


def _declare(model: ir.Model) -> Layers:
    """Write the shapes that the roles have; return the caches' fixed sizes."""
    count = sum(str(value.name).startswith("past_key_values.") for value in model.graph.inputs) // 2
    sizes: dict[str, tuple[int, int]] = {}
    head_dim = _head_dim(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        name = str(value.name)
        if name in past_names(count) + present_names(count):
            shape = value.shape
            fixed = (
                None
                if shape is None or len(shape) != 4
                else (shape[1], head_dim if isinstance(shape[3], ir.SymbolicDim) else shape[3])
            )
            if fixed is None or not isinstance(fixed[0], int) or not isinstance(fixed[1], int):
                raise DraftError(
                    f"{name} {described(value)} is no [batch, kv_heads, cache, head_dim] with fixed heads"
                )
            sizes[name] = (fixed[0], fixed[1])
            value.shape = ir.Shape(["batch", fixed[0], "cache", fixed[1]])
        elif name == "input_ids":
            value.shape = ir.Shape(["batch", "time"])
        elif name == "logits":
            width = None if value.shape is None else value.shape[-1]
            if not isinstance(width, int):
                raise DraftError(f"{name} {described(value)}: the size of the vocabulary must be fixed")
            value.shape = ir.Shape(["batch", "selected", width])
    order = {name: place for place, name in enumerate([*OWN, *past_names(count)])}
    values = sorted(model.graph.inputs, key=lambda value: order[str(value.name)])
    model.graph.inputs[:] = values
    return [sizes[f"past_key_values.{layer}.key"] for layer in range(count)]


def _head_dim(model: ir.Model) -> int | None:
    """Width of a head, where the graph's declarations leave it open: from what attention's output is multiplied by."""
    for node in model.graph:
        if node.op_type != "GroupQueryAttention":
            continue
        for reader, _ in node.outputs[0].uses():
            weights = reader.inputs[1] if len(reader.inputs) > 1 else None
            rows = reader.attributes.get_int("K", None)
            if (
                rows is None
                and weights is not None
                and weights.shape is not None
                and isinstance(weights.shape[0], int)
            ):
                rows = weights.shape[0]
            if rows is not None:
                return rows // node.attributes["num_heads"].as_int()
    return None
