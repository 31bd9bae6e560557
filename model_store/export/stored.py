"""Keeps weights as float16 in the file of a graph that computes in float32: half the bytes, the same speed.

A runtime widens them once, when it opens the graph. Knows neither where the weights come from nor who reads the graph.
"""

from typing import Final

import numpy as np
import onnx_ir
import torch
from torch import nn

from model_store.export.errors import GraphFailed

SMALLEST: Final = 256
"""Tensors of fewer numbers stay as they are: a node costs about as much."""


def round_weights(module: nn.Module) -> None:
    """Round a module's float32 parameters to what float16 holds, in place. Raises GraphFailed where one is too large for it."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dtype == torch.float32:
                weight.copy_(weight.half())
                if not weight.isfinite().all():
                    raise GraphFailed(f"the weights {name} are too large to be stored as float16")


def store_halves(model: onnx_ir.Model) -> None:
    """Store every initializer that float16 holds exactly as such, and cast it back before its readers, in place."""
    for name, value in list(model.graph.initializers.items()):
        half = _half(value)
        if half is None:
            continue
        narrow = onnx_ir.Value(
            name=f"{name}.float16",
            type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT16),
            shape=value.shape,
            const_value=onnx_ir.tensor(half, name=f"{name}.float16"),
        )
        cast = onnx_ir.node("Cast", [narrow], {"to": onnx_ir.DataType.FLOAT}, name=f"{name}.widen")
        onnx_ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        model.graph.initializers.pop(name)
        cast.outputs[0].name = name
        model.graph.register_initializer(narrow)
        model.graph.insert_before(model.graph[0], cast)


def _half(value: onnx_ir.Value) -> np.ndarray | None:
    """What an initializer holds as float16, None where that loses something or saves nothing."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < SMALLEST:
        return None
    full = tensor.numpy()
    with np.errstate(over="ignore"):
        half = full.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), full) else None
