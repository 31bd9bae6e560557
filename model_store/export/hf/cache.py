"""Keeps a decoder's cache in 8 bits: every channel of every head has a scale, from the largest keys and values seen.

GroupQueryAttention rounds what it writes and reads it back as it attends. Knows no files.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from model_store.export.hf.job import Report
from model_store.export.hf.quantize import array_of, constant
from model_store.export.hf.rows import Array, Opens, Rows

LARGEST: Final = 127
MARGIN: Final = 1.25
"""Other texts reach further: what is cut off costs more than coarser steps do."""

K_SCALE: Final = 12
"""Place of the keys' scales among the node's inputs; those of the values follow."""


def quantize_cache(model: ir.Model, session: Opens, report: Report, texts: Sequence[Array]) -> None:
    """Make the state of `model` int8, in place. `session` is the float32 graph that has seen its size in `texts`."""
    nodes = {_input(node, 3).name: node for node in model.graph if node.op_type == "GroupQueryAttention"}
    turning = any(node.op_type == "Sin" for node in model.graph)
    reach: dict[str | None, Array] = {}
    for text in texts:
        rows = Rows(session, report.layers, vocabulary=report.vocabulary, batch=1, cache=len(text))
        rows.prefill([text])
        for name, (found,) in rows.past.items():
            sizes = _turned(found, nodes[name], turning=turning) if name in nodes else np.abs(found)
            reach[name] = np.maximum(reach.get(name, 0), sizes.max(1))
    for keys, node in nodes.items():
        _round(model, node, reach[keys], reach[_input(node, 4).name])


def _turned(keys: Array, node: ir.Node, *, turning: bool) -> Array:
    """The largest size that each channel of keys [heads, tokens, head_dim] has at any position.

    A rotation moves the length of a pair of channels from one to the other, and slow ones do so far behind the texts' end.
    """
    if not node.attributes.get_int("do_rotary", 0):
        sizes = np.abs(keys)
        return sizes.max(-1, keepdims=True).repeat(keys.shape[-1], -1) * np.sqrt(2) if turning else sizes
    pairs = array_of(_input(node, 7)).shape[1]
    interleaved = node.attributes.get_int("rotary_interleaved", 0)
    part, rest = np.split(keys, [2 * pairs], -1)
    first, second = (part[..., ::2], part[..., 1::2]) if interleaved else np.split(part, 2, -1)
    lengths = np.hypot(first, second)
    both = lengths.repeat(2, -1) if interleaved else np.concatenate((lengths, lengths), -1)
    return np.concatenate((both, np.abs(rest)), -1)


def _round(model: ir.Model, node: ir.Node, *reach: Array) -> None:
    for place, part in enumerate(("k", "v")):
        scales = np.where(reach[place] > 0, reach[place] * MARGIN / LARGEST, 1)[None, :, None].astype(
            np.float32
        )
        value = constant(model, f"{node.outputs[0].name}/{part}_scale", scales)
        node.resize_inputs(max(len(node.inputs), K_SCALE + place + 1))
        node.replace_input_with(K_SCALE + place, value)
        node.attributes[f"{part}_quant_type"] = ir.AttrString(f"{part}_quant_type", "PER_CHANNEL")
        _input(node, 3 + place).dtype = node.outputs[1 + place].dtype = ir.DataType.INT8
    node.attributes["kv_cache_bit_width"] = ir.AttrInt64("kv_cache_bit_width", 8)


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    if value is None:
        raise ValueError(f"{node.name} has no input {place}")
    return value
