"""What an ONNX file contains, read from its bytes: operators, external data, size. Needs no `onnx`, opens no session.

A protobuf wire reader for the few messages that matter. It is strict where protobuf is lenient, because a graph that
two readers understand differently is how a check is passed by.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from model_store.errors import BrokenGraph, ForbiddenOperator, TooLarge

# "ONNX's own": the standard operators. `ai.onnx.ml` (trees, string maps) stays out: no exporter of ours writes it.
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})

# Operators of ONNX Runtime's own domain. Each is tensor arithmetic with no file, no hidden state and no code in it.
CONTRIB_DOMAIN: Final = "com.microsoft"
CONTRIB_OPERATORS: Final = frozenset(
    {
        # Attention over a cache; positions. What our Transformer and genai's model builder are made of.
        "Attention",
        "GroupQueryAttention",
        "MultiHeadAttention",
        "RotaryEmbedding",
        # Weights of 4 and 8 bits: what the quantizers write in the place of MatMul and Gather.
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        # What ONNX Runtime's and the exporters' fusions leave of several standard operators.
        "BiasGelu",
        "FastGelu",
        "FusedConv",
        "FusedMatMul",
        "Gelu",
        "QuickGelu",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)

# Parsing costs about a microsecond a field; a graph of 200,000 nodes has fewer than this.
_MOST_FIELDS: Final = 10_000_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10

# Fields of onnx.proto3 that hold messages to look into. Everything else is skipped unread.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = 1, 7, 10, 11
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_TENSORS: Final = (1, 2)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

Operator: TypeAlias = tuple[str, str]  # domain ("" is ONNX's own), type


@dataclass(slots=True)
class GraphFile:
    """Contents of one ONNX file, subgraphs and local functions included."""

    operators: set[Operator] = field(default_factory=set)
    functions: set[Operator] = field(default_factory=set)
    external: set[str] = field(default_factory=set)  # locations as written, relative to the file's folder
    nodes: int = 0
    depth: int = 0  # of nested subgraphs; 1 without any


def read(content: bytes, *, most_nodes: int = 200_000, deepest: int = 8) -> GraphFile:
    """List what the file contains. Raises BrokenGraph where it is no ONNX, TooLarge beyond a limit."""
    reader = _Reader(memoryview(content), most_nodes, deepest)
    reader.model(0, len(content))
    if not reader.found.depth:
        raise BrokenGraph("the file holds no graph")
    return reader.found


def check_operators(found: GraphFile) -> None:
    """Raises ForbiddenOperator where the graph uses what is neither standard, nor allowed, nor its own function."""
    for domain, operator in sorted(found.operators - found.functions):
        if domain in STANDARD_DOMAINS or (domain == CONTRIB_DOMAIN and operator in CONTRIB_OPERATORS):
            continue
        raise ForbiddenOperator(f"the operator {operator!r} of domain {domain!r} is not allowed")


class _Reader:
    """Walks the messages. Spans are [start, end) offsets into one buffer: weights are never copied."""

    def __init__(self, buffer: memoryview, most_nodes: int, deepest: int) -> None:
        self.found = GraphFile()
        self._buffer = buffer
        self._most_nodes, self._deepest = most_nodes, deepest
        self._fields = 0

    def model(self, start: int, end: int) -> None:
        for number, low, high in self._messages(start, end):
            if number == _MODEL_GRAPH:
                self._graph(low, high, 1)
            elif number == _MODEL_FUNCTIONS:
                self._function(low, high)
            elif number == _MODEL_TRAINING:
                raise BrokenGraph("the file holds training graphs, which are never served")

    def _graph(self, start: int, end: int, depth: int) -> None:
        if depth > self._deepest:
            raise TooLarge(f"subgraphs are nested deeper than {self._deepest}")
        self.found.depth = max(self.found.depth, depth)
        for number, low, high in self._messages(start, end):
            if number == _GRAPH_NODE:
                self._node(low, high, depth)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(low, high)
            elif number == _GRAPH_SPARSE:
                self._sparse(low, high)

    def _function(self, start: int, end: int) -> None:
        name = domain = ""
        for number, low, high in self._messages(start, end):
            if number == _FUNCTION_NAME:
                name = self._text(low, high)
            elif number == _FUNCTION_DOMAIN:
                domain = self._text(low, high)
            elif number == _FUNCTION_NODE:
                self._node(low, high, 1)
            elif number == _FUNCTION_ATTRIBUTE:
                self._attribute(low, high, 1)
        self.found.functions.add((domain, name))

    def _node(self, start: int, end: int, depth: int) -> None:
        self.found.nodes += 1
        if self.found.nodes > self._most_nodes:
            raise TooLarge(f"the graph has more than {self._most_nodes} nodes")
        operator = domain = ""
        for number, low, high in self._messages(start, end):
            if number == _NODE_OPERATOR:
                operator = self._text(low, high)
            elif number == _NODE_DOMAIN:
                domain = self._text(low, high)
            elif number == _NODE_ATTRIBUTE:
                self._attribute(low, high, depth)
        self.found.operators.add((domain, operator))

    def _attribute(self, start: int, end: int, depth: int) -> None:
        for number, low, high in self._messages(start, end):
            if number in _ATTRIBUTE_TENSORS:
                self._tensor(low, high)
            elif number in _ATTRIBUTE_GRAPHS:
                self._graph(low, high, depth + 1)
            elif number in _ATTRIBUTE_SPARSE:
                self._sparse(low, high)

    def _sparse(self, start: int, end: int) -> None:
        for number, low, high in self._messages(start, end):
            if number in _SPARSE_TENSORS:
                self._tensor(low, high)

    def _tensor(self, start: int, end: int) -> None:
        is_external, locations = False, list[str]()
        for number, kind, low, high in self._walk(start, end):
            if number == _TENSOR_EXTERNAL and kind == _BYTES:
                is_external = True
                key, value = self._entry(low, high)
                if key == "location":
                    locations.append(value)
            elif number == _TENSOR_LOCATION and kind == _VARINT:
                is_external = is_external or low != 0
        if is_external and len(locations) != 1:
            raise BrokenGraph("a tensor outside the file does not name exactly one file")
        self.found.external.update(locations)

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        key = value = ""
        for number, low, high in self._messages(start, end):
            if number == _ENTRY_KEY:
                key = self._text(low, high)
            elif number == _ENTRY_VALUE:
                value = self._text(low, high)
        return key, value

    def _text(self, start: int, end: int) -> str:
        try:
            return str(self._buffer[start:end], "utf-8")
        except UnicodeDecodeError as error:
            raise BrokenGraph("a name in the graph is not UTF-8") from error

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _messages(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number and span of every length-delimited field."""
        for number, kind, low, high in self._walk(start, end):
            if kind == _BYTES:
                yield number, low, high

    def _walk(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type and span of every field; for a varint its value in the place of the span's start."""
        at = start
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise TooLarge(f"the graph has more than {_MOST_FIELDS} fields")
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise BrokenGraph("the file is no ONNX: it has a field without a number")
            value, width = at, {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
            if kind == _VARINT:
                value, at = self._varint(at, end)
            elif kind == _BYTES:
                width, value = self._varint(at, end)
            elif not width:
                raise BrokenGraph(f"the file is no ONNX: it has a field of wire type {kind}")
            if kind != _VARINT:
                at = value + width
            if at > end:
                raise BrokenGraph("the file is no ONNX, or it is cut off: a field ends beyond its message")
            yield number, kind, value, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for place in range(_LONGEST_VARINT):
            if at + place >= end:
                raise BrokenGraph("the file is no ONNX, or it is cut off: a number ends beyond its message")
            byte = self._buffer[at + place]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value, at + place + 1
        raise BrokenGraph("the file is no ONNX: it has a number longer than ten bytes")
