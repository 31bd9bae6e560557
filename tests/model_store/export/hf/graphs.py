"""ONNX graphs of a few nodes, written by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

Spec = tuple[str, ir.DataType, Sequence[int | str]]


def constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def graph_of(
    inputs: Sequence[Spec], outputs: Sequence[Spec], nodes: Callable[[dict[str, ir.Value]], Sequence[ir.Node]]
) -> ir.Model:
    """A model; `nodes` gets inputs and outputs by name. Constants that nodes read become initializers."""
    values = {
        name: ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        for name, dtype, shape in (*inputs, *outputs)
    }
    made = nodes(values)
    for place, node in enumerate(made):
        for at, output in enumerate(node.outputs):
            if output.name is None:
                output.name = f"value_{place}_{at}"
    constants = {
        value.name: value
        for node in made
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    graph = ir.Graph(
        [values[name] for name, *_ in inputs],
        [values[name] for name, *_ in outputs],
        nodes=made,
        initializers=list(constants.values()),
        opset_imports={"": 21, "com.microsoft": 1},
        name="graph",
    )
    return ir.Model(graph, ir_version=10, producer_name="test")
