"""Makes an exported decoder graph smaller and faster without changing what it computes.

Nodes that do nothing go, weights of products that share their input are joined, and sums that are normalised become one
node. Knows ONNX patterns, no model; a pattern that is not there changes nothing.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

CONTRIB: Final = "com.microsoft"
SCOPES: Final = "pkg.torch.onnx.name_scopes"
SEPARATOR: Final = "|"
"""Between the names of products that were joined, side by side."""

_SKIPS: Final = {
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
    "LayerNormalization": "SkipLayerNormalization",
}


def simplify_graph(model: ir.Model) -> None:
    """All of it, in place."""
    name_products(model)
    ClearMetadataAndDocStringPass()(model)
    for change in (
        drop_concatenations,
        drop_transposes,
        drop_reshapes,
        pack_attention,
        fuse_silu,
        fuse_skips,
    ):
        change(model)
        RemoveUnusedNodesPass()(model)


def name_products(model: ir.Model) -> None:
    """Call each product after the linear layer it comes from, as torch's exporter has noted it: whoever changes it finds it so."""
    for node in _nodes(model, "MatMul"):
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        if len(scopes) > 1 and scopes[-1].startswith("linear"):
            node.name = scopes[-2].partition(".")[2]  # without the step around the model


def drop_reshapes(model: ir.Model) -> None:
    """Reshapes, one or several in a row, after which a tensor has the shape it had."""
    for node in list(_nodes(model, "Reshape")):
        source = node.inputs[0]
        while (maker := _maker(source, "Reshape")) is not None:
            source = maker.inputs[0]
        if source is None:
            continue
        if _same_shape(source, node.outputs[0]):
            _replace(node.outputs[0], source)
        else:
            node.replace_input_with(0, source)


def drop_concatenations(model: ir.Model) -> None:
    """Concatenations of slices that are the whole again: what is left of a partial rotation that happens elsewhere."""
    for node in list(_nodes(model, "Concat")):
        axis = node.attributes.get_int("axis", 0)
        rank = len(node.outputs[0].shape or ())
        whole = _whole(node.inputs, axis - rank if axis >= 0 else axis)
        if whole is not None:
            _replace(node.outputs[0], whole)


def _whole(values: Sequence[ir.Value | None], axis: int) -> ir.Value | None:
    """What has been cut into exactly these values, in this order along this axis, by one Split or by Slices."""
    split = _maker(values[0], "Split")
    if split is not None:
        same = list(split.outputs) == list(values)
        return split.inputs[0] if same and _axis(split, split.inputs[0]) == axis else None
    slices = [_maker(value, "Slice") for value in values]
    whole = slices[0].inputs[0] if slices[0] else None
    if whole is None or whole.shape is None or not all(each and each.inputs[0] is whole for each in slices):
        return None
    rank = len(whole.shape)
    end, size = 0, whole.shape[axis]
    for each in slices:
        piece = _piece(each, rank)
        if piece is None or piece[0] != axis % rank or piece[1] != end:
            return None
        end = piece[2]
    return whole if isinstance(size, int) and end >= size else None


def _axis(node: ir.Node, value: ir.Value | None) -> int:
    """The node's axis, counted from the last."""
    axis = node.attributes.get_int("axis", 0)
    return axis if axis < 0 or value is None or value.shape is None else axis - len(value.shape)


def drop_transposes(model: ir.Model) -> None:
    """Two in a row that undo each other."""
    for node in list(_nodes(model, "Transpose")):
        before = _maker(node.inputs[0], "Transpose")
        if before is None or before.inputs[0] is None:
            continue
        first, second = (each.attributes.get_ints("perm", None) for each in (before, node))
        if first and second and [first[place] for place in second] == list(range(len(first))):
            _replace(node.outputs[0], before.inputs[0])


def _piece(node: ir.Node | None, rank: int) -> tuple[int, int, int] | None:
    """Axis, start and end of a Slice of one axis with step 1 and constant ends."""
    if node is None:
        return None
    values = [_numbers(value) for value in node.inputs[1:]]
    if len(values) < 3 or any(each is None or len(each) != 1 for each in values):
        return None
    start, end, axis, *step = (int(each[0]) for each in values if each is not None)
    return None if step not in ([], [1]) or start < 0 else (axis % rank, start, end)


def pack_attention(model: ir.Model) -> None:
    """One product instead of three before each GroupQueryAttention, which takes them packed."""
    for node in list(_nodes(model, "GroupQueryAttention")):
        whole = _whole(node.inputs[:3], -1)
        if whole is not None:
            node.replace_input_with(0, whole)
            node.replace_input_with(1, None)
            node.replace_input_with(2, None)
            continue
        products = [_product(value) for value in node.inputs[:3]]
        if any(each is None for each in products):
            continue
        matrices, biases = zip(*(each for each in products if each), strict=True)
        if len({id(each.inputs[0]) for each in matrices}) > 1 or len({each is None for each in biases}) > 1:
            continue
        packed = _join([each.inputs[1] for each in matrices], f"{node.outputs[0].name}/packed_weight")
        if packed is None:
            continue
        graph = model.graph
        graph.register_initializer(packed)
        name = SEPARATOR.join(str(each.name) for each in matrices)
        made = [ir.node("MatMul", [matrices[0].inputs[0], packed], name=name)]
        if biases[0] is not None:
            bias = _join(biases, f"{node.outputs[0].name}/packed_bias")
            if bias is None:
                continue
            graph.register_initializer(bias)
            made.append(ir.node("Add", [made[0].outputs[0], bias], name=f"{node.outputs[0].name}/packed_add"))
        for place, each in enumerate(made):
            each.outputs[0].name = f"{node.outputs[0].name}/packed_{place}"
            each.outputs[0].type = packed.type
        graph.insert_before(node, made)
        node.replace_input_with(0, made[-1].outputs[0])
        node.replace_input_with(1, None)
        node.replace_input_with(2, None)


def _product(value: ir.Value | None) -> tuple[ir.Node, ir.Value | None] | None:
    """The MatMul with constant weights that makes a value, and the constant added to it, if nothing else reads either."""
    if value is None or len(value.uses()) != 1:
        return None
    bias = None
    node = value.producer()
    if node is not None and node.op_type == "Add":
        constants = [each for each in node.inputs if each is not None and each.const_value is not None]
        others = [each for each in node.inputs if each is not None and each.const_value is None]
        if len(constants) != 1 or len(others) != 1 or len(others[0].uses()) != 1:
            return None
        bias, node = constants[0], others[0].producer()
    if (
        node is None
        or node.op_type != "MatMul"
        or node.inputs[1] is None
        or node.inputs[1].const_value is None
    ):
        return None
    return node, bias


def _join(values: Sequence[ir.Value | None], name: str) -> ir.Value | None:
    """Constants side by side along their last axis."""
    arrays = [
        each.const_value.numpy() for each in values if each is not None and each.const_value is not None
    ]
    if len(arrays) != len(values) or len({each.ndim for each in arrays}) > 1:
        return None
    joined = np.concatenate(arrays, -1)
    tensor = ir.tensor(joined, name=name)
    return ir.Value(
        name=name, shape=ir.Shape(joined.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def fuse_silu(model: ir.Model) -> None:
    """X * sigmoid(x) as one node."""
    for node in list(_nodes(model, "Mul")):
        for value, gate in (node.inputs, node.inputs[::-1]):
            sigmoid = _maker(gate, "Sigmoid")
            if sigmoid is not None and sigmoid.inputs[0] is value:
                made = ir.node(
                    "QuickGelu", [value], {"alpha": 1.0}, domain=CONTRIB, name=f"{node.outputs[0].name}/silu"
                )
                put_in_place(model, node, made)
                break


def fuse_skips(model: ir.Model) -> None:
    """A sum and the norm that reads it as one node that gives both."""
    for operator, fused in _SKIPS.items():
        for norm in list(_nodes(model, operator)):
            total = norm.inputs[0]
            add = _maker(total, "Add")
            if add is None or total is None or not all(_streams(value) for value in add.inputs):
                continue
            if not all(_same_shape(value, total) for value in add.inputs if value is not None):
                continue
            if (
                norm.attributes.get_int("axis", -1) != -1
                and norm.attributes.get_int("axis") != len(total.shape or ()) - 1
            ):
                continue
            _fuse_skip(model, add, norm, fused)


def _fuse_skip(model: ir.Model, add: ir.Node, norm: ir.Node, fused: str) -> None:
    total = add.outputs[0]
    parts, bias = _without_bias(add)
    scales = [*norm.inputs[1:]]
    if bias is not None and fused == "SkipLayerNormalization":
        scales = [*scales, *[None] * (2 - len(scales))]
    made = ir.node(
        fused,
        [*parts, *scales, *([bias] if bias is not None else [])],
        {"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
        domain=CONTRIB,
        num_outputs=4,
        name=f"{norm.outputs[0].name}/skip",
    )
    for place, old in ((0, norm.outputs[0]), (3, total)):
        made.outputs[place].name = f"{old.name}/skip"
        made.outputs[place].shape, made.outputs[place].type = old.shape, old.type
    for place in (1, 2):
        made.outputs[place].name = ""
    first = _first(model, [each for each, _ in total.uses()])
    model.graph.insert_before(first, [made])
    _replace(total, made.outputs[3])
    _replace(norm.outputs[0], made.outputs[0])


def _without_bias(add: ir.Node) -> tuple[list[ir.Value | None], ir.Value | None]:
    """The two summands, and the constant vector that one of them is a sum with, if nothing else reads that sum."""
    for place, value in enumerate(add.inputs):
        inner = _maker(value, "Add")
        if inner is None or value is None or len(value.uses()) != 1:
            continue
        for part, bias in (inner.inputs, inner.inputs[::-1]):
            if (
                bias is not None
                and bias.const_value is not None
                and len(bias.const_value.shape) == 1
                and _streams(part)
            ):
                return [part if at == place else each for at, each in enumerate(add.inputs)], bias
    return list(add.inputs), None


def _first(model: ir.Model, nodes: Sequence[ir.Node]) -> ir.Node:
    wanted = set(map(id, nodes))
    return next(node for node in model.graph if id(node) in wanted)


def _streams(value: ir.Value | None) -> bool:
    """Not a constant, and of three axes: what the fused norms take."""
    return (
        value is not None and value.const_value is None and value.shape is not None and len(value.shape) == 3
    )


def put_in_place(model: ir.Model, old: ir.Node, made: ir.Node) -> None:
    """Let the only output of `made` be what the first of `old` was, under its name; `old` stays, unread."""
    value, new = old.outputs[0], made.outputs[0]
    new.name, value.name = value.name, f"{value.name}/before"
    new.shape, new.type = value.shape, value.type
    model.graph.insert_before(old, [made])
    value.replace_all_uses_with(new, replace_graph_outputs=True)


def _replace(old: ir.Value, new: ir.Value) -> None:
    if not old.is_graph_output():
        old.replace_all_uses_with(new)


def _nodes(model: ir.Model, operator: str) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type == operator)


def _maker(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    pairs = zip(one.shape, other.shape, strict=True)
    return all(a == b and not (isinstance(a, ir.SymbolicDim) and a.value is None) for a, b in pairs)


def _numbers(value: ir.Value | None) -> list[int] | None:
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if constant is None else [int(each) for each in constant.numpy().ravel()]
