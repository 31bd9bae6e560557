"""Several LoRA adapters in one graph: each row of a batch says which of them it wants.

Two inputs more: `adapter_row` i64 [adapted] names the rows that want one, `adapter` i64 [adapted] which one (0: none). A product
y = x W becomes y + (x A) B for those rows, A and B holding the adapters side by side: what of x A belongs to another
adapter than the row's is made zero. So rows of all adapters share products with constant weights, a row's numbers do not
depend on its neighbours, and where no row wants an adapter these products have no rows. Knows no torch and no files.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from model_store.export.draft import tensor
from model_store.export.hf.quantize import constant
from model_store.export.hf.stack import Stack

INPUTS: Final = (
    tensor("adapter_row", "int64", "adapted"),
    tensor("adapter", "int64", "adapted"),
)


def add_adapters(model: ir.Model, stacks: Mapping[str, Stack], dtype: ir.DataType) -> None:
    """Put the adapters beside the products they change, in place; they compute in `dtype`, as the graph does."""
    adding = _Adding(model, dtype)
    for node in list(model.graph):
        stack, source = stacks.get(node.name or ""), next(iter(node.inputs), None)
        if stack is not None and source is not None:
            adding.beside(node, source, stack)


class _Adding:
    """A graph that is being changed, and what its products share."""

    def __init__(self, model: ir.Model, dtype: ir.DataType) -> None:
        self._model, self._dtype = model, dtype
        self._first = next(iter(model.graph))
        kind = ir.TensorType(ir.DataType.INT64)
        self._row, adapter = (
            ir.Value(name=each.name, shape=ir.Shape(each.shape), type=kind) for each in INPUTS
        )
        model.graph.inputs.extend((self._row, adapter))
        axes = constant(model, "adapter_axes", np.array([1, 2]))
        self._adapter = self._before(self._first, "Unsqueeze", adapter, axes)
        self._place = self._before(
            self._first, "Unsqueeze", self._row, constant(model, "adapter_axis", np.array([1]))
        )
        self._nothing = constant(model, "adapter_nothing", np.zeros((), dtype.numpy()))
        self._owned: dict[bytes, ir.Value] = {}
        self._read: dict[str | None, ir.Value] = {}

    def beside(self, node: ir.Node, source: ir.Value, stack: Stack) -> None:
        """Add to what a product of `source` gives."""
        total = node.outputs[0]
        if source.name not in self._read:
            self._read[source.name] = self._before(node, "Gather", source, self._row, axis=0)
        down, up = (
            constant(self._model, f"{node.name}/{part}", array.astype(self._dtype.numpy()))
            for part, array in (("down", stack.down), ("up", stack.up))
        )
        uses = list(total.uses())
        low = _node("MatMul", self._read[source.name], down)
        own = _node("Where", self._owner(stack.owner), low.outputs[0], self._nothing)
        high = _node("MatMul", own.outputs[0], up)
        added = _node("ScatterND", total, self._place, high.outputs[0], reduction="add")
        added.outputs[0].shape, added.outputs[0].type = total.shape, total.type
        for part, each in (("low", low), ("own", own), ("high", high), ("added", added)):
            each.name = each.outputs[0].name = f"{node.name}/{part}"
        self._model.graph.insert_after(node, (low, own, high, added))
        for user, place in uses:
            user.replace_input_with(place, added.outputs[0])
        if total.is_graph_output():
            outputs = self._model.graph.outputs
            outputs[outputs.index(total)] = added.outputs[0]
            added.outputs[0].name, total.name = total.name, f"{total.name}/before"

    def _owner(self, owner: Any) -> ir.Value:
        """Whether each column [adapted, 1, columns] belongs to the row's adapter."""
        key = owner.tobytes()
        if key not in self._owned:
            columns = constant(self._model, f"adapter_columns_{len(self._owned)}", owner)
            self._owned[key] = self._before(self._first, "Equal", self._adapter, columns)
        return self._owned[key]

    def _before(self, node: ir.Node, operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        made = _node(operator, *inputs, **attributes)
        made.name = made.outputs[0].name = f"adapter/{operator}/{inputs[0].name}/{inputs[1].name}"
        self._model.graph.insert_before(node, [made])
        return made.outputs[0]


def _node(operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Node:
    return ir.node(operator, inputs, attributes)
