"""Changes what a float32 graph is stored or computed in, its numbers kept as well as the format can."""

from typing import Final

import numpy as np
import onnx_ir as ir

from model_store.export.hf.options import Options
from model_store.export.hf.quantize import quantize_graph

SMALLEST: Final = 1024
"""Weights of fewer elements stay as they are: norms and biases weigh nothing and matter much."""


def change_precision(model: ir.Model, options: Options) -> None:
    """Make the graph what `options` ask for, in place."""
    if options.precision == "int4":
        quantize_graph(model, 4, options.block)
    elif options.precision == "int8":
        quantize_graph(model, 8, options.block)
    if options.device == "cuda" and options.precision != "fp32":
        compute_in_half(model)
    elif options.precision in {"fp16", "bf16"}:
        store_in_half(model, ir.DataType.FLOAT16 if options.precision == "fp16" else ir.DataType.BFLOAT16)


def store_in_half(model: ir.Model, dtype: ir.DataType) -> None:
    """Keep the weights in 16 bits and cast them to float32 in front of whoever reads them: done once, when the graph is opened."""
    for value in list(model.graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT or value.const_value is None or value.const_value.size < SMALLEST:
            continue
        if _is_table(value):
            continue
        stored = _converted(model, value, dtype, f"{value.name}_stored")
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{value.name}_cast")
        cast.outputs[0].name = f"{value.name}_float"
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, value.type
        model.graph.insert_before(next(iter(model.graph)), [cast])
        value.replace_all_uses_with(cast.outputs[0])
        model.graph.initializers.pop(str(value.name))


def compute_in_half(model: ir.Model) -> None:
    """Every float32 tensor becomes float16: weights, state and logits."""
    for value in list(model.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
            made = _converted(model, value, ir.DataType.FLOAT16, f"{value.name}_half")
            value.replace_all_uses_with(made)
            model.graph.initializers.pop(str(value.name))
    for node in model.graph:
        for attribute in node.attributes.values():
            if attribute.name == "to" and attribute.as_int() == ir.DataType.FLOAT:
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
            elif (
                attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT
            ):
                halved = ir.tensor(attribute.as_tensor().numpy().astype(np.float16))
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, halved)
        for output in node.outputs:
            _halve(output)
    for value in model.graph.inputs:
        _halve(value)


def _halve(value: ir.Value) -> None:
    if value.dtype == ir.DataType.FLOAT:
        value.dtype = ir.DataType.FLOAT16


def _is_table(value: ir.Value) -> bool:
    """Whether only attention reads it: the rotations, which are no weights."""
    return all(node.op_type == "GroupQueryAttention" for node, _ in value.uses())


def _converted(model: ir.Model, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    if value.const_value is None:
        raise ValueError(f"{value.name} is no constant")
    array = value.const_value.numpy()
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused by its cost
        tensor = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=name)
    made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
    model.graph.register_initializer(made)
    return made
