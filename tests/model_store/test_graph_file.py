"""The ONNX reader against files that `onnx` writes, and against files that nobody should write."""

import string
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.external_data_helper import set_external_data
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from model_store import graph_file
from model_store.errors import BrokenGraph, ForbiddenOperator, PackageError, TooLarge
from model_store.graph_file import CONTRIB_DOMAIN, CONTRIB_OPERATORS, GraphFile, check_operators, read


def node(operator: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)


def file(*nodes: NodeProto, **fields: Any) -> bytes:
    model = ModelProto(ir_version=10, graph=GraphProto(name="g", node=nodes), **fields)
    content: bytes = model.SerializeToString()
    return content


def nest(depth: int) -> NodeProto:
    inner = node("Abs")
    for _ in range(depth):
        inner = node("If", then_branch=GraphProto(name="b", node=[inner]))
    return inner


# -- what is in a file ------------------------------------------------------------------------------------------------


def test_operators_nodes_and_depth_of_a_plain_graph() -> None:
    found = read(file(node("Add"), node("Add"), node("GroupQueryAttention", CONTRIB_DOMAIN)))
    assert found.operators == {("", "Add"), (CONTRIB_DOMAIN, "GroupQueryAttention")}
    assert (found.nodes, found.depth) == (3, 1)
    assert not found.external


def test_subgraphs_are_read_in_every_kind_of_attribute() -> None:
    single = node("If", then_branch=GraphProto(name="a", node=[node("Evil", "com.example")]))
    several = node("Scan")
    listed = AttributeProto(
        name="graphs", type=AttributeProto.GRAPHS, graphs=[GraphProto(node=[node("Worse", "x")])]
    )
    several.attribute.append(listed)
    found = read(file(single, several))
    assert {("com.example", "Evil"), ("x", "Worse")} <= found.operators
    assert found.depth == 2


def test_functions_of_the_file_are_its_own_operators_but_their_nodes_count() -> None:
    function = helper.make_function(
        "pkg.local",
        "twice",
        ["x"],
        ["y"],
        [node("Add"), node("Evil", "com.example")],
        [helper.make_opsetid("", 20)],
    )
    content = file(node("twice", "pkg.local"), functions=[function])
    found = read(content)
    assert found.functions == {("pkg.local", "twice")}
    with pytest.raises(ForbiddenOperator, match=r"'Evil' of domain 'com\.example'"):
        check_operators(found)


def tensor(location: str | None = None) -> TensorProto:
    made = helper.make_tensor("w", TensorProto.FLOAT, [1], b"\0" * 4, raw=True)
    if location is not None:
        set_external_data(made, location, offset=0, length=4)
        made.ClearField("raw_data")
    return made


@pytest.mark.parametrize(
    "attribute",
    [
        {"t": tensor("far/w.bin")},
        {"tensors": [tensor(), tensor("far/w.bin")]},
        {"sparse_tensor": helper.make_sparse_tensor(tensor("far/w.bin"), tensor(), [1])},
        {"sparse_tensors": [helper.make_sparse_tensor(tensor(), tensor("far/w.bin"), [1])]},
        {"g": GraphProto(name="inner", initializer=[tensor("far/w.bin")])},
        {
            "g": GraphProto(
                name="inner",
                sparse_initializer=[helper.make_sparse_tensor(tensor("far/w.bin"), tensor(), [1])],
            )
        },
    ],
)
def test_external_data_is_found_wherever_a_tensor_may_be(attribute: dict[str, Any]) -> None:
    holder = node("Constant")
    holder.attribute.append(AttributeProto(name="value", **attribute))
    assert read(file(holder)).external == {"far/w.bin"}


def test_external_data_of_initializers_is_found() -> None:
    graph = GraphProto(name="g", initializer=[tensor(), tensor("a.bin"), tensor("b.bin")])
    assert read(ModelProto(graph=graph).SerializeToString()).external == {"a.bin", "b.bin"}


def test_a_tensor_outside_the_file_names_one_file() -> None:
    twice = tensor("a.bin")
    twice.external_data.add(key="location", value="b.bin")
    nameless = tensor()
    nameless.data_location = TensorProto.EXTERNAL
    # No data location, but an entry: some readers would follow it.
    unmarked = tensor()
    unmarked.external_data.add(key="offset", value="0")
    for broken in (twice, nameless, unmarked):
        with pytest.raises(BrokenGraph, match="does not name exactly one file"):
            read(ModelProto(graph=GraphProto(initializer=[broken])).SerializeToString())


# -- what is allowed --------------------------------------------------------------------------------------------------


def test_standard_and_listed_operators_are_allowed() -> None:
    check_operators(
        GraphFile(
            operators={("", "Loop"), ("ai.onnx", "Add")} | {("com.microsoft", o) for o in CONTRIB_OPERATORS}
        )
    )


@pytest.mark.parametrize(
    ("domain", "operator"),
    [
        ("com.microsoft", "PythonOp"),
        ("com.microsoft", "groupqueryattention"),
        ("com.microsoft.nchwc", "Conv"),
        ("ai.onnx.ml", "TreeEnsemble"),
        ("ai.onnx.preview.training", "Adam"),
        ("ai.onnx.contrib", "PyCustomOp"),
        ("AI.ONNX", "Add"),
        (" ", "Add"),
        ("com.example", "Add"),
    ],
)
def test_everything_else_is_refused_by_name(domain: str, operator: str) -> None:
    with pytest.raises(ForbiddenOperator, match=f"'{operator}' of domain '{domain}'"):
        check_operators(GraphFile(operators={("", "Add"), (domain, operator)}))


def test_every_listed_operator_exists() -> None:
    known = {schema.name for schema in get_all_operator_schema() if schema.domain == CONTRIB_DOMAIN}
    assert known >= CONTRIB_OPERATORS


# -- limits and broken files ------------------------------------------------------------------------------------------


def test_too_many_nodes_are_refused() -> None:
    content = file(*[node("Add")] * 11)
    assert read(content, most_nodes=11).nodes == 11
    with pytest.raises(TooLarge, match="more than 10 nodes"):
        read(content, most_nodes=10)


def test_too_deep_subgraphs_are_refused() -> None:
    assert read(file(nest(7))).depth == 8
    with pytest.raises(TooLarge, match="nested deeper than 8"):
        read(file(nest(8)))
    with pytest.raises(TooLarge, match="nested deeper than 8"):
        read(file(nest(28)))


def test_a_flood_of_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_file, "_MOST_FIELDS", 1000)
    with pytest.raises(TooLarge, match="more than 1000 fields"):
        read(b"\x08\x01" * 1001)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no graph"),
        (b"\x08\x0a", "holds no graph"),
        (b"<html></html>", "is no ONNX"),
        (b"ORTM" * 9, "is no ONNX"),
        (b"\x00\x01", "a field without a number"),
        (b"\x3b", "wire type 3"),
        (b"\x3c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x3a\x05ab", "a field ends beyond its message"),
        (b"\x09abc", "a field ends beyond its message"),
        (b"\x0dabc", "a field ends beyond its message"),
        (b"\x08", "a number ends beyond its message"),
        (b"\x08" + b"\xff" * 10, "longer than ten bytes"),
        (b"\x08" + b"\xff" * 3, "a number ends beyond its message"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a field ends beyond its message"),
    ],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(BrokenGraph, match=message):
        read(content)


def test_an_inner_length_cannot_reach_outside_its_message() -> None:
    inner = b"\x0a\x7f"  # a node of 127 bytes in a graph of two
    with pytest.raises(BrokenGraph, match="beyond its message"):
        read(b"\x3a" + bytes([len(inner)]) + inner + b"\0" * 200)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    broken = file(node("Add")).replace(b"Add", b"A\xff\xfe")
    with pytest.raises(BrokenGraph, match="not UTF-8"):
        read(broken)


def test_training_graphs_are_refused() -> None:
    model = ModelProto(graph=GraphProto(name="g"))
    model.training_info.add()
    with pytest.raises(BrokenGraph, match="training graphs"):
        read(model.SerializeToString())


def test_a_truncated_file_is_refused_at_every_length() -> None:
    content = file(node("Add"), node("If", then_branch=GraphProto(name="b", node=[node("Mul")])))
    for length in range(len(content)):
        with pytest.raises(BrokenGraph):
            read(content[:length])


# -- two readers agree ------------------------------------------------------------------------------------------------

names = st.text(string.ascii_letters, max_size=6)
nodes = st.recursive(
    st.builds(node, names, names),
    lambda inner: st.builds(
        lambda o, d, body: node(o, d, body=GraphProto(name="b", node=body)),
        names,
        names,
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


def walk(graph: GraphProto) -> list[NodeProto]:
    found = list(graph.node)
    for each in graph.node:
        for attribute in each.attribute:
            found += walk(attribute.g)
    return found


@given(st.lists(nodes, max_size=6))
def test_what_onnx_reads_is_what_we_read(drawn: list[NodeProto]) -> None:
    content = file(*drawn)
    expected = walk(ModelProto.FromString(content).graph)
    found = read(content, deepest=20)
    assert found.operators == {(each.domain, each.op_type) for each in expected}
    assert found.nodes == len(expected)


@given(st.lists(nodes, min_size=1, max_size=3), st.lists(nodes, min_size=1, max_size=3))
def test_a_second_graph_field_is_merged_as_protobuf_does(
    first: list[NodeProto], second: list[NodeProto]
) -> None:
    """Concatenated messages merge: nodes hidden in a second graph field are seen."""
    content = file(*first) + file(*second)
    expected = walk(ModelProto.FromString(content).graph)
    assert read(content, deepest=20).nodes == len(expected)


def test_the_last_of_two_domains_counts_as_in_protobuf() -> None:
    plain = node("Evil", "ai.onnx").SerializeToString()
    doubled = plain + NodeProto(domain="com.example").SerializeToString()
    content = b"\x3a" + bytes([len(doubled) + 2]) + b"\x0a" + bytes([len(doubled)]) + doubled
    (seen,) = ModelProto.FromString(content).graph.node
    assert seen.domain == "com.example"
    assert read(content).operators == {("com.example", "Evil")}


@settings(max_examples=300)
@given(st.data())
def test_mutated_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(
        file(node("Add"), nest(2), functions=[helper.make_function("d", "f", [], [], [node("Mul")], [])])
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PackageError):
        read(bytes(content))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(PackageError):
        read(content)
