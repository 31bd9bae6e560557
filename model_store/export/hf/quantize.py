"""Rounds a graph's weights to 4 or 8 bits in blocks that share a scale, for ONNX Runtime's MatMulNBits.

Vectorised numpy, no runtime. Of symmetric and asymmetric rounding each matrix gets the one with the smaller squared error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from model_store.export.hf.rewrite import put_in_place

CONTRIB: Final = "com.microsoft"
ACCURACY: Final = 4
"""Activations are rounded to int8, a block at a time: twice as fast as float activations on a CPU."""

ASYMMETRIC_GAIN: Final = 0.75
"""Zero points cost 5 % of a step: they must make the squared error this much smaller."""

SHRINKS: Final = (0.95, 0.9, 0.85)
"""Shares of the full range that 4 bits are tried with: cutting off the extreme may pay for the others."""

_AT_ONCE: Final = 1 << 18

Bits = Literal[4, 8]
Array = npt.NDArray[Any]
Found = tuple[Array, Array, Array, float]
"""Codes u8 [rows, blocks, block], scales and zero points [rows, blocks], and the sum of squared errors."""


@dataclass(frozen=True)
class Blocks:
    """A matrix [N, K] rounded: `codes` u8 [N, blocks, block * bits / 8], `scales` [N, blocks], `zeros` u8 or None (the middle)."""

    codes: Array
    scales: Array
    zeros: Array | None
    error: float


def round_matrix(matrix: Array, bits: Bits, block: int) -> Blocks:
    """Round f32 [N, K] along K, padded with zeros to whole blocks; `error` is the sum of squared errors."""
    rows, columns = matrix.shape
    count = -(-columns // block)
    padded = np.zeros((rows, count * block), np.float32)
    padded[:, :columns] = matrix
    parts = padded.reshape(rows, count, block)
    symmetric = _in_pieces(_symmetric, parts, bits)
    asymmetric = _in_pieces(_asymmetric, parts, bits)
    if asymmetric[3] < ASYMMETRIC_GAIN * symmetric[3]:
        codes, scales, zeros, error = asymmetric
        return Blocks(pack(codes, bits), scales, pack_zeros(zeros, bits), error)
    codes, scales, _, error = symmetric
    return Blocks(pack(codes, bits), scales, None, error)


def _in_pieces(method: Callable[[Array, Bits], Found], parts: Array, bits: Bits) -> Found:
    """A method on as many rows at a time as stay in the processor's cache: several times as fast."""
    size = max(1, _AT_ONCE // parts[0].size)
    found = [method(parts[first : first + size], bits) for first in range(0, len(parts), size)]
    codes, scales, zeros = (np.concatenate(each) for each in list(zip(*found, strict=True))[:3])
    return codes, scales, zeros, sum(each[3] for each in found)


def _symmetric(parts: Array, bits: Bits) -> Found:
    """The value of largest magnitude takes the code 0, which has one more step than the other end."""
    middle = np.float32(1 << (bits - 1))
    places = np.abs(parts).argmax(-1, keepdims=True)
    full = np.take_along_axis(parts, places, -1) / -middle
    scales, codes = full, _codes(parts, full, middle, bits)
    best = _errors(parts, codes, scales, middle)
    for shrink in SHRINKS if bits == 4 else ():
        tried = full * np.float32(shrink)
        found = _codes(parts, tried, middle, bits)
        errors = _errors(parts, found, tried, middle)
        better = errors < best
        best, codes, scales = (
            np.where(better, new, old) for new, old in ((errors, best), (found, codes), (tried, scales))
        )
    zeros = np.full(scales.shape[:-1], middle, np.uint8)
    return codes, scales[..., 0], zeros, float(np.sum(best, dtype=np.float64))


def _asymmetric(parts: Array, bits: Bits) -> Found:
    """From the smallest value (or 0) to the largest (or 0)."""
    most = (1 << bits) - 1
    low, high = np.minimum(parts.min(-1, keepdims=True), 0), np.maximum(parts.max(-1, keepdims=True), 0)
    scales = (high - low) / most
    zeros = np.rint(np.divide(-low, scales, out=np.zeros_like(low), where=scales != 0)).clip(0, most)
    codes = _codes(parts, scales, zeros, bits)
    error = float(_errors(parts, codes, scales, zeros).sum(dtype=np.float64))
    return codes, scales[..., 0], zeros[..., 0].astype(np.uint8), error


def _codes(parts: Array, scales: Array, zeros: Any, bits: Bits) -> Array:
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    codes: Array = np.clip(np.rint(parts * inverse + zeros), 0, (1 << bits) - 1).astype(np.uint8)
    return codes


def _errors(parts: Array, codes: Array, scales: Array, zeros: Any) -> Array:
    """Sum of squared errors of each block, [rows, blocks, 1]."""
    errors: Array = np.square((codes.astype(np.float32) - zeros) * scales - parts).sum(-1, keepdims=True)
    return errors


def pack(codes: Array, bits: Bits) -> Array:
    """Codes [..., block] as bytes: with 4 bits two to a byte, the first in the low half."""
    if bits == 8:
        return codes
    packed: Array = codes[..., ::2] | (codes[..., 1::2] << 4)
    return packed


def pack_zeros(zeros: Array, bits: Bits) -> Array:
    """Zero points [N, blocks] as MatMulNBits takes them: padded to whole bytes."""
    if bits == 4 and zeros.shape[-1] % 2:
        zeros = np.pad(zeros, ((0, 0), (0, 1)))
    return pack(zeros, bits)


def unpack(blocks: Blocks, bits: Bits, columns: int) -> Array:
    """The rounded matrix f32 [N, columns]: what the blocks stand for."""
    codes, zeros = blocks.codes, blocks.zeros
    if bits == 4:
        codes = np.stack((codes & 15, codes >> 4), -1).reshape(*codes.shape[:-1], -1)
        if zeros is not None:
            zeros = np.stack((zeros & 15, zeros >> 4), -1).reshape(len(zeros), -1)[:, : codes.shape[1]]
    middle: Any = np.float32(1 << (bits - 1)) if zeros is None else zeros[..., None].astype(np.float32)
    values: Array = (codes.astype(np.float32) - middle) * blocks.scales[..., None]
    return values.reshape(len(values), -1)[:, :columns]


def quantize_graph(model: ir.Model, bits: Bits, block: int) -> int:
    """Replace every product with constant weights by MatMulNBits, in place; return how many.

    An embedding that shares its weights with such a product is read from the same rounded ones, row by row.
    """
    products = [each for each in model.graph if each.op_type == "MatMul" and _weights(each) is not None]
    rounded: dict[int, Rounded] = {}
    for node in products:
        weights = _weights(node)
        if weights is None:
            continue
        source, transposed = weights
        made = rounded.get(id(source))
        if made is None:
            matrix = array_of(source).astype(np.float32)
            made = _store(
                model, source.name or node.name or "weights", matrix if transposed else matrix.T, bits, block
            )
            rounded[id(source)] = made
        _multiply(model, node, made, bits, block)
        if transposed:
            _look_up(model, source, made, bits, block)
    RemoveUnusedNodesPass()(model)
    model.graph.opset_imports.setdefault(CONTRIB, 1)
    return len(products)


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix [rows, columns] as constants of a graph."""

    codes: ir.Value
    scales: ir.Value
    zeros: ir.Value | None
    rows: int
    columns: int


def _weights(node: ir.Node) -> tuple[ir.Value, bool] | None:
    """The constant a product multiplies by, and whether it is stored [N, K] and transposed on the way."""
    value = node.inputs[1]
    if value is None:
        return None
    if value.const_value is not None:
        return (value, False) if len(value.const_value.shape) == 2 else None
    maker = value.producer()
    if maker is not None and maker.op_type == "Transpose" and maker.inputs[0] is not None:
        source = maker.inputs[0]
        if source.const_value is not None and len(source.const_value.shape) == 2:
            return source, True
    return None


def array_of(value: ir.Value) -> Array:
    """The numbers of a constant."""
    if value.const_value is None:
        raise ValueError(f"{value.name} is no constant")
    return value.const_value.numpy()


def _store(model: ir.Model, name: str, matrix: Array, bits: Bits, block: int) -> Rounded:
    blocks = round_matrix(matrix, bits, block)
    zeros = None if blocks.zeros is None else constant(model, f"{name}_zeros", blocks.zeros)
    codes = constant(model, f"{name}_q{bits}", blocks.codes)
    return Rounded(codes, constant(model, f"{name}_scales", blocks.scales), zeros, *matrix.shape)


def constant(model: ir.Model, name: str, array: Array) -> ir.Value:
    """Add an initializer to a graph."""
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value


def _multiply(model: ir.Model, node: ir.Node, made: Rounded, bits: Bits, block: int) -> None:
    attributes = {
        "K": made.columns,
        "N": made.rows,
        "bits": bits,
        "block_size": block,
        "accuracy_level": ACCURACY,
    }
    inputs = [node.inputs[0], made.codes, made.scales, *([made.zeros] if made.zeros else [])]
    put_in_place(model, node, ir.node("MatMulNBits", inputs, attributes, domain=CONTRIB, name=node.name))


def _look_up(model: ir.Model, source: ir.Value, made: Rounded, bits: Bits, block: int) -> None:
    """Embeddings out of the rounded matrix, cut where its last block is padded."""
    width = -(-made.columns // block) * block
    for node, place in list(source.uses()):
        if node.op_type != "Gather" or place != 0:
            continue
        name = made.codes.name
        shape = constant(model, f"{name}_shape", np.array([made.rows, width * bits // 8]))
        flat = ir.node("Reshape", [made.codes, shape], name=f"{name}_flat")
        flat.outputs[0].name = f"{name}_rows"
        inputs = [flat.outputs[0], node.inputs[1], made.scales, *([made.zeros] if made.zeros else [])]
        attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
        read = ir.node("GatherBlockQuantized", inputs, attributes, domain=CONTRIB, name=node.name)
        model.graph.insert_before(node, [flat])
        if width == made.columns:
            put_in_place(model, node, read)
            continue
        model.graph.insert_before(node, [read])
        read.outputs[0].name, read.outputs[0].type = f"{name}_padded", node.outputs[0].type
        ends = [constant(model, f"{name}_{at}", np.array([at])) for at in (0, made.columns, -1)]
        put_in_place(model, node, ir.node("Slice", [read.outputs[0], *ends], name=f"{name}_cut"))
