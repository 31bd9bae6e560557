"""The joined sampler: what it chooses, against the definition in numpy, with and without control flow in the graph."""

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from model_store.export.errors import GraphFailed
from model_store.export.sampled import HEAD, INPUTS, sample, unsampled
from model_store.export.sampling import join
from model_store.session import Array, Session
from model_store.zoo import transformer_graph
from model_store.zoo.shakespeare_gpt import SIZES

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
LARGEST_UNIFORM = 1 - 2**-24
FLAT = np.random.default_rng(0).standard_normal(1000).astype(np.float32)


def passing(vocabulary: int, kind: int = TensorProto.FLOAT, opset: int = 21) -> onnx.ModelProto:
    """A graph whose logits are its input."""
    shape: list[str | int | None] = ["batch", "selected", vocabulary]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["logits"])],
        "g",
        [value("x", kind, shape)],
        [value("logits", kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@cache
def joined(vocabulary: int, branches: bool) -> Session:
    return Session(join(passing(vocabulary), branches=branches).SerializeToString())


def controls(rows: int, **fields: Any) -> dict[str, Array]:
    """Inputs of so many rows; a field is one value for all of them or an array."""
    edits = np.asarray(fields.pop("edit_token", np.zeros((rows, 0))))
    masked = np.asarray(fields.pop("mask_row", np.zeros(0)))
    defaults: dict[str, Any] = {
        "target": np.full((rows, 1), -1),
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "uniform": 0.5,
        "edit_token": edits,
        "edit_scale": np.ones(edits.shape),
        "edit_add": np.zeros(edits.shape),
        "mask_row": masked,
        "mask": np.zeros((len(masked), 1)),
        "candidates": np.zeros(HEAD),
        "alternatives": np.zeros(0),
    }
    made = {}
    for tensor in INPUTS:
        value = np.asarray({**defaults, **fields}[tensor.name])
        shaped = np.broadcast_to(value, (rows,)) if tensor.shape == ("batch",) else value
        made[tensor.name] = np.ascontiguousarray(shaped.astype(tensor.dtype))
    return made


def run(logits: Array, *, branches: bool = True, **fields: Any) -> dict[str, Array]:
    """Rows of logits [rows, vocabulary], each with one selected position."""
    rows, vocabulary = logits.shape
    given_controls = controls(rows, **fields)
    given_controls["candidates"] = np.zeros(min(len(given_controls["candidates"]), vocabulary), np.int64)
    names = ("token", "logprob", "top_token", "top_logprob")
    feeds = {"x": logits[:, None], **given_controls}
    results = joined(vocabulary, branches).run(feeds, names)
    return dict(zip(names, results, strict=True))


def tokens(logits: Array, **fields: Any) -> list[int]:
    found: list[int] = run(logits, **fields)["token"][:, 0].tolist()
    return found


def frequencies(logits: Array, **fields: Any) -> Array:
    """How often each token comes out of 10,000 evenly spread numbers."""
    spread = (np.arange(10_000) + 0.5) / 10_000
    rows = np.tile(logits, (len(spread), 1))
    counts = np.bincount(tokens(rows, uniform=spread, **fields), minlength=len(logits))
    shares: Array = counts / len(spread)
    return shares


def distribution(logits: Array, temperature: float, top_k: int, top_p: float, min_p: float = 0) -> Array:
    """The distribution to sample from, by token, written down as the definition reads."""
    scaled = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    order = np.argsort(-logits, kind="stable")
    kept = order[:top_k] if top_k else order
    share = scaled[kept] / scaled[kept].sum()
    before = np.cumsum(share) - share
    kept = kept[((before < top_p) & (scaled[kept] >= min_p)) | (np.arange(len(kept)) == 0)]
    result: Array = np.zeros_like(scaled)
    result[kept] = scaled[kept] / scaled[kept].sum()
    return result


@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST_UNIFORM])
@pytest.mark.parametrize("temperature", [0, 1e-30, 1e-6])
def test_the_coldest_take_the_most_probable_token(uniform: float, temperature: float) -> None:
    assert tokens(LOGITS[None, ::-1] * 50, temperature=temperature, uniform=uniform) == [len(LOGITS) - 1]


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert tokens(np.array([[1, 3, 2, 3]], np.float32), temperature=0) == [1]


@pytest.mark.parametrize("branches", [True, False])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [(1.0, 0, 1.0, 0), (0.5, 0, 1.0, 0), (2.0, 0, 1.0, 0), (1.0, 3, 1.0, 0), (1.0, 0, 0.7, 0), (0.8, 4, 0.9, 0), (1.0, 0, 1.0, 0.2)],
)  # fmt: skip
def test_even_numbers_reproduce_the_distribution(
    branches: bool, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    found = frequencies(
        LOGITS, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, branches=branches
    )
    expected = distribution(LOGITS, temperature, top_k, top_p, min_p)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(("top_p", "min_p"), [(1.0, 0), (0.9, 0), (0.5, 0.02), (1.0, 0.01)])
def test_a_flat_distribution_is_drawn_from_all_of_the_vocabulary(top_p: float, min_p: float) -> None:
    """Its nucleus is larger than the candidates that are sorted."""
    expected = distribution(FLAT, 1.0, 0, top_p, min_p)
    assert (expected > 0).sum() > HEAD
    found = frequencies(FLAT, top_p=top_p, min_p=min_p)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@given(
    logits=st.lists(st.integers(-40, 40), min_size=8, max_size=8, unique=True),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 8),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 0.9),
    uniform=st.floats(0, LARGEST_UNIFORM, width=32),
)
def test_agrees_with_the_definition_in_numpy(
    logits: list[int], temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> None:
    values = np.array([logits], np.float32) / 8
    near = [
        distribution(values[0], temperature, top_k, top_p + nudge, min_p + nudge) for nudge in (-1e-5, 1e-5)
    ]
    assume(np.array_equal(near[0] > 0, near[1] > 0))  # not on the edge of a filter, where rounding decides
    order = np.argsort(-values[0])
    for by in (order, np.arange(8)):
        assume(np.abs(np.cumsum(near[0][by])[:-1] - uniform).min() > 1e-5)
    fields = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "uniform": uniform,
    }
    expected = sample(values[:, None], controls(1, **fields))
    for branches in (True, False):
        assert tokens(values, branches=branches, **fields) == expected["token"][:, 0].tolist()


def test_filters_keep_what_they_say() -> None:
    half = np.log(np.array([0.5, 0.25, 0.13, 0.12], np.float32))

    def kept(**fields: Any) -> set[int]:
        return set(np.flatnonzero(frequencies(half, **fields)))

    assert kept(temperature=3, top_k=2) == {0, 1}
    assert kept(top_p=0.49) == {0}
    assert kept(top_p=0.51) == {0, 1}
    assert kept(top_p=0.76) == {0, 1, 2}
    assert kept(min_p=0.45) == {0, 1}
    # Of the two that top_k keeps the first has two thirds, which reaches 0.6; of all four it has half.
    assert kept(top_k=2, top_p=0.6) == {0}


@pytest.mark.parametrize("vocabulary", [64, 512, 1000])
def test_the_largest_number_never_chooses_what_was_filtered_out(vocabulary: int) -> None:
    logits = np.linspace(5, -5, vocabulary, dtype=np.float32)[None]
    assert tokens(logits, top_k=7, uniform=LARGEST_UNIFORM) == [6]
    assert tokens(logits, uniform=0.0) == [0]
    assert tokens(logits, uniform=LARGEST_UNIFORM)[0] < vocabulary


def test_logprobs_are_the_models_own() -> None:
    fields: dict[str, Any] = {"uniform": 0.0, "alternatives": np.zeros(6)}
    plain = run(LOGITS[None], **fields)
    changed = run(
        LOGITS[None],
        temperature=0.3,
        top_k=2,
        edit_token=np.array([[3]]),
        edit_add=np.array([[-5.0]]),
        **fields,
    )
    own = LOGITS - np.log(np.exp(LOGITS).sum())
    for found in (plain, changed):
        np.testing.assert_allclose(found["top_logprob"][0, 0], own, atol=1e-6)
        np.testing.assert_allclose(found["logprob"][0, 0], own[0], atol=1e-6)
        assert found["top_token"].tolist() == [[[0, 1, 2, 3, 4, 5]]]


def test_forced_and_sampled_positions_can_share_a_row() -> None:
    feeds = {"x": np.tile(LOGITS, (1, 3, 1)), **controls(1, temperature=0, target=np.array([[4, 2, -1]]))}
    feeds["candidates"] = np.zeros(1, np.int64)
    token, logprob = joined(6, branches=True).run(feeds, ("token", "logprob"))
    assert token.tolist() == [[4, 2, 0]]
    np.testing.assert_allclose(
        logprob[0], (LOGITS - np.log(np.exp(LOGITS).sum()))[[4, 2, 0]], rtol=1e-5, atol=1e-6
    )


def test_edits_scale_towards_less_and_add() -> None:
    token = np.array([[0, 4, 0]])  # what is left over repeats the first
    scale, add = np.array([[4.0, 2.0, 4.0]]), np.array([[0.0, 0.5, 0.0]])
    edited = LOGITS.copy()
    edited[0], edited[4] = 2.0 / 4, -1.0 * 2 + 0.5
    edits: dict[str, Any] = {"edit_token": token, "edit_scale": scale, "edit_add": add}
    found = frequencies(LOGITS, **{name: np.tile(value, (10_000, 1)) for name, value in edits.items()})
    np.testing.assert_allclose(found, distribution(edited, 1.0, 0, 1.0), atol=2e-4)


def test_a_mask_forbids_tokens_in_its_row_alone() -> None:
    allowed = np.array([[0b101000]], np.int32)
    rows = np.tile(LOGITS, (3, 1))
    assert tokens(rows, temperature=0, mask_row=[1], mask=allowed) == [0, 3, 0]
    assert tokens(rows, uniform=LARGEST_UNIFORM, mask_row=[1], mask=allowed)[1] == 5


def test_a_row_does_not_depend_on_its_neighbours_or_on_what_they_want() -> None:
    """Bit for bit, with more candidates sorted and alternatives reported for others."""
    generator = np.random.default_rng(1)
    logits = generator.standard_normal((6, 1000)).astype(np.float32)
    logits[:3] *= 4
    fields: dict[str, Any] = {
        "temperature": np.array([0.0, 0.5, 1.0, 1.5, 1.0, 1.0]),
        "top_k": np.array([0, 5, 0, 200, 0, 0]),
        "top_p": np.array([1.0, 1.0, 0.5, 0.9, 1.0, 0.9]),
        "min_p": np.array([0.0, 0.0, 0.0, 0.0, 0.01, 0.0]),
        "uniform": generator.random(6),
    }
    more: dict[str, Any] = {"candidates": np.zeros(512), "alternatives": np.zeros(20)}
    together = run(logits, **fields, **more)
    for row in range(6):
        size = 256 if fields["top_k"][row] else HEAD
        own: dict[str, Any] = {name: value[row : row + 1] for name, value in fields.items()}
        alone = run(logits[row : row + 1], candidates=np.zeros(size), **own)
        for name in ("token", "logprob"):
            assert alone[name][0].tobytes() == together[name][row].tobytes()


def test_half_precision_logits_are_sampled_in_single() -> None:
    session = Session(join(passing(6, TensorProto.FLOAT16)).SerializeToString())
    feeds = {"x": LOGITS.astype(np.float16)[None, None], **controls(1, temperature=0)}
    feeds["candidates"] = np.zeros(1, np.int64)
    (token, logprob) = session.run(feeds, ("token", "logprob"))
    assert token.tolist() == [[0]]
    assert logprob.dtype == np.float32


def test_a_graph_without_control_flow_has_none() -> None:
    kinds = {node.op_type for node in join(passing(6), branches=False).graph.node}
    assert not kinds & {"If", "Loop", "NonZero"}


# Operators with CUDA kernels for the types used here, by the type names in ONNX Runtime's CUDA library.
ON_CUDA = (
    "Add And Cast ConstantOfShape CumSum Div Equal Exp Expand Gather GatherElements Greater GreaterOrEqual Identity "
    "Less LessOrEqual Log LogSoftmax Max Min Mul Not Or Pad ReduceSum Reshape ScatterElements ScatterND Shape Slice "
    "Squeeze Sub TopK Unsqueeze Where Constant"
)


def test_a_graph_to_be_captured_has_no_step_on_the_host() -> None:
    """ONNX Runtime computes on the host what has no CUDA kernel and what it takes for arithmetic on shapes."""
    nodes = join(passing(6), branches=False).graph.node
    assert {node.op_type for node in nodes} <= set(ON_CUDA.split())
    shapes = {node.output[0] for node in nodes if node.op_type == "Shape"}
    takers = {node.op_type for node in nodes if shapes & set(node.input)}
    assert takers == {"TopK", "ConstantOfShape"}


@pytest.mark.parametrize("branches", [True, False])
def test_every_bit_of_a_mask_is_a_token(branches: bool) -> None:
    """Signed words, the highest bit among them; each row allows one token."""
    vocabulary = 70
    allowed = [0, 1, 30, 31, 32, 62, 63, 64, 69]
    mask = np.zeros((len(allowed), 3), np.uint32)
    mask[range(len(allowed)), [token // 32 for token in allowed]] = [1 << token % 32 for token in allowed]
    logits = np.random.default_rng(0).normal(size=(len(allowed) + 1, vocabulary)).astype(np.float32)
    fields: dict[str, Any] = {
        "mask_row": range(len(allowed)),
        "mask": mask.view(np.int32),
        "branches": branches,
    }
    assert tokens(logits, temperature=0, **fields) == [*allowed, int(logits[-1].argmax())]
    everything = np.full((len(allowed), 3), -1)
    free = tokens(logits, temperature=0, **{**fields, "mask": everything})
    assert free == logits.argmax(1).tolist()


@pytest.mark.parametrize("vocabulary", [0, 6])
def test_what_cannot_be_joined_is_refused(vocabulary: int) -> None:
    model = passing(6, opset=17 if vocabulary else 21)
    if not vocabulary:
        model.graph.output[0].name = "something else"
    with pytest.raises(GraphFailed, match=r"logits|opset"):
        join(model)


def test_the_module_behind_a_sampled_graph_returns_logits(tmp_path: Any) -> None:
    whole = transformer_graph.step("recipe", tmp_path / "weights", SIZES)
    own = unsampled(whole, SIZES.vocabulary)
    assert [tensor.name for tensor in own.inputs][:3] == ["input_ids", "select", "seqlens_k"]
    assert own.outputs[0].shape == ("batch", "selected", SIZES.vocabulary)
    assert not own.sampled
