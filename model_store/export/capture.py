"""Rewrites what a captured CUDA graph cannot replay, in graphs of any origin. Knows no model."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def replace_gathers(graph: onnx.GraphProto) -> None:
    """Let `select` pick its positions [batch, selected] of [batch, time, width] by GatherElements, in place.

    ONNX Runtime's GatherND copies sizes to the device from a vector on the host, which a replay would find gone.
    """
    made = {output: node for node in graph.node for output in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        index = made.get(node.input[1]) if node.op_type == "GatherND" else None
        if index is not None and index.op_type == "Unsqueeze" and index.input[0] == "select":
            nodes.extend(_gather(node))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _gather(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    data, index = node.input
    ones, width, shape, wide = (f"{node.output[0]}/{part}" for part in ("ones", "width", "shape", "wide"))
    one_each = numpy_helper.from_array(np.ones(2, np.int64), ones)
    return [
        helper.make_node("Constant", [], [ones], value=one_each),
        helper.make_node("Shape", [data], [width], start=2),
        helper.make_node("Concat", [ones, width], [shape], axis=0),
        helper.make_node("Expand", [index, shape], [wide]),
        helper.make_node("GatherElements", [data, wide], list(node.output), axis=1),
    ]
