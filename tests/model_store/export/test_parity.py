"""The comparison with torch: what passes, what does not, and that the error says where and by how much."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_store.errors import RunFailed
from model_store.export.cases import Array
from model_store.export.draft import tensor
from model_store.export.errors import DraftError, ParityError
from model_store.export.parity import LIMITS, SMALLEST_SCALE, Figure, compare, compare_graph

LIMIT = LIMITS["float32"]
VALUES = arrays.arrays(
    np.float32,
    arrays.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
)


def difference(expected: Array, found: Array) -> float:
    return compare(expected, found, graph="g", output="o", sizes={"batch": 2})


@given(VALUES)
def test_equal_arrays_differ_by_nothing(values: Array) -> None:
    assert difference(values, values.copy()) == 0.0


@given(VALUES, st.floats(-0.9, 0.9), st.data())
def test_noise_below_the_limit_passes(values: Array, share: float, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, values.size - 1))
    scale = max(float(np.abs(values).max()), SMALLEST_SCALE)
    found = values.astype(np.float64)
    found.flat[place] += share * LIMIT * scale

    # float32 itself rounds by up to 6e-8 of the value.
    assert difference(values, found.astype(np.float32)) == pytest.approx(abs(share) * LIMIT, abs=2e-7)


@given(VALUES, st.floats(1.1, 1000), st.booleans(), st.data())
def test_the_worst_element_is_found(values: Array, share: float, below: bool, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, values.size - 1))
    scale = max(float(np.abs(values).max()), SMALLEST_SCALE)
    found = values.astype(np.float64)
    found.flat[place] += (-1 if below else 1) * share * LIMIT * scale
    found = found.astype(np.float32)

    with pytest.raises(ParityError) as caught:
        difference(values, found)

    index = tuple(int(each) for each in np.unravel_index(place, values.shape))
    assert caught.value.index == index
    assert caught.value.expected == values[index]
    assert caught.value.found == found[index]
    assert caught.value.error == pytest.approx(share * LIMIT, rel=0.02)


def test_the_message_says_where_and_by_how_much() -> None:
    expected = np.array([[1, 2, 4]], np.float32)

    with pytest.raises(ParityError) as caught:
        difference(expected, np.array([[1, 3, 4]], np.float32))

    assert str(caught.value) == (
        "graph 'g', output 'o' at batch 2: the graph gives 3 at [0, 1] where torch gives 2, "
        "a relative error of 0.25 (1e-04 is allowed)"
    )
    assert (caught.value.graph, caught.value.output) == ("g", "o")


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers_must_be_equal(dtype: str) -> None:
    expected = np.array([0, 1, 1], dtype)

    assert difference(expected, expected.copy()) == 0.0
    with pytest.raises(ParityError, match=r"gives .* at \[2\]"):
        difference(expected, np.array([0, 1, 0], dtype))


def test_large_whole_numbers_are_not_rounded_together() -> None:
    expected = np.array([2**60], np.int64)

    with pytest.raises(ParityError):
        difference(expected, expected + 64)


def test_half_precision_has_its_own_limit() -> None:
    expected = np.array([1.0], np.float16)

    assert 0 < difference(expected, np.array([1.005], np.float16)) < LIMITS["float16"]
    with pytest.raises(ParityError):
        difference(expected, np.array([1.05], np.float16))


def test_infinities_must_be_the_same_and_nan_is_never_right() -> None:
    inf, nan = float("inf"), float("nan")
    expected = np.array([1, inf, -inf], np.float32)

    assert difference(expected, expected.copy()) == 0.0
    for wrong in ([1, -inf, -inf], [1, 7, -inf], [inf, inf, -inf], [nan, inf, -inf]):
        with pytest.raises(ParityError):
            difference(expected, np.array(wrong, np.float32))
    with pytest.raises(ParityError):
        difference(np.array([nan], np.float32), np.array([nan], np.float32))


def test_noise_around_zero_is_measured_against_the_smallest_scale() -> None:
    zeros = np.zeros(3, np.float32)

    assert difference(zeros, zeros + np.float32(0.5 * LIMIT * SMALLEST_SCALE)) <= LIMIT
    with pytest.raises(ParityError):
        difference(zeros, zeros + np.float32(2 * LIMIT * SMALLEST_SCALE))


def test_other_shapes_and_dtypes_are_told_apart() -> None:
    expected = np.zeros((2, 3), np.float32)

    with pytest.raises(ParityError, match=r"the graph gives float32\[2, 4\], torch float32\[2, 3\]"):
        difference(expected, np.zeros((2, 4), np.float32))
    with pytest.raises(ParityError, match="int64"):
        difference(expected, np.zeros((2, 3), np.int64))


def test_nothing_equals_nothing() -> None:
    assert difference(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0.0


class Function:
    """A session made of a function from x to y."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self._function = function

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        assert outputs == ["y"]
        return [self._function(feeds["x"])]


TENSORS = ([tensor("x", "float32", "batch", "time")], [tensor("y", "float32", "batch")])


def summed(batch: int, time: int) -> tuple[dict[str, Array], dict[str, Array]]:
    values = np.arange(batch * time, dtype=np.float32).reshape(batch, time)
    return {"x": values}, {"y": values.sum(1)}


CASES = [summed(2, 4), summed(1, 4), summed(2, 6)]


def test_a_graph_that_agrees_gives_one_figure_an_output() -> None:
    figures = compare_graph(Function(lambda x: x.sum(1)), "sum", TENSORS, CASES)

    assert figures == [Figure("sum", "y", cases=3, error=0.0, limit=LIMIT)]


def test_the_worst_case_counts() -> None:
    [figure] = compare_graph(
        Function(lambda x: x.sum(1) * np.float32(1 + x.size * 1e-6)), "sum", TENSORS, CASES
    )

    assert figure.error == pytest.approx(12e-6, rel=0.1)


def test_a_frozen_dimension_is_seen_in_the_second_shape() -> None:
    with pytest.raises(ParityError, match="output 'y' at batch 2, time 6"):
        compare_graph(Function(lambda x: x[:, :4].sum(1)), "sum", TENSORS, CASES)


def test_a_graph_that_cannot_run_at_some_shape_does_not_match() -> None:
    def only_four(values: Array) -> Array:
        if values.shape[1] != 4:
            raise RunFailed("reshape of 6 to 4")
        return np.asarray(values.sum(1))

    with pytest.raises(
        ParityError, match=r"graph 'sum' fails at batch 2, time 6.*may be frozen .reshape of 6 to 4"
    ):
        compare_graph(Function(only_four), "sum", TENSORS, CASES)


def test_outputs_that_torch_itself_shapes_otherwise_are_the_drafts_fault() -> None:
    inputs, _ = TENSORS

    with pytest.raises(DraftError, match=r"torch's 'y' is float32\[2\] where float32\[time\] belongs"):
        compare_graph(Function(lambda x: x.sum(1)), "sum", (inputs, [tensor("y", "float32", "time")]), CASES)
