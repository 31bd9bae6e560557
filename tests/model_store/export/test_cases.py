"""Example inputs: random ones fit their descriptions and move every dimension; wrong ones are refused by name."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.export.cases import (
    Array,
    at,
    bind,
    check_cases,
    described,
    dimensions,
    random_cases,
    sizes_of,
    trace_example,
)
from model_store.export.draft import GraphDraft, tensor
from model_store.export.errors import DraftError
from model_store.manifest import DType, Tensor

SHAPES = st.lists(st.one_of(st.integers(1, 5), st.sampled_from(["batch", "time", "width"])), max_size=4)
DTYPES: st.SearchStrategy[DType] = st.sampled_from(["float32", "float16", "int64", "int32", "uint8", "bool"])


def graph(*inputs: Tensor, **options: Any) -> GraphDraft:
    return GraphDraft(factory="nets:make", inputs=inputs, outputs=(), **options)


IMAGES = tensor("images", "float32", "batch", 1, "height", "width")
TOKENS = tensor("tokens", "int64", "batch", "time")


@given(st.lists(st.tuples(DTYPES, SHAPES), min_size=1, max_size=4))
def test_random_cases_fit_their_descriptions(specs: list[tuple[DType, list[int | str]]]) -> None:
    inputs = [tensor(f"x{place}", dtype, *shape) for place, (dtype, shape) in enumerate(specs)]
    draft = graph(*inputs)

    cases = random_cases(draft)

    check_cases(draft, cases)
    assert len(cases) == (2 if "batch" in dimensions(inputs) else 1) * (
        2 if set(dimensions(inputs)) - {"batch"} else 1
    )


@given(st.lists(st.tuples(DTYPES, SHAPES), min_size=1, max_size=4))
def test_the_trace_sees_no_varying_dimension_of_size_one_or_equal_to_another(
    specs: list[tuple[DType, list[int | str]]],
) -> None:
    inputs = [tensor(f"x{place}", dtype, *shape) for place, (dtype, shape) in enumerate(specs)]

    arrays = trace_example(graph(*inputs))

    sizes = bind(inputs, dict(zip((each.name for each in inputs), arrays, strict=True)))
    assert all(size >= 2 for size in sizes.values())
    assert len(set(sizes.values())) == len(sizes)


def test_random_cases_are_the_same_every_time() -> None:
    first, second = random_cases(graph(IMAGES, TOKENS)), random_cases(graph(IMAGES, TOKENS))

    for before, after in zip(first, second, strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_ranges_include_both_ends() -> None:
    draft = graph(IMAGES, TOKENS, ranges={"images": (0.25, 0.5), "tokens": (7, 9)}, sizes={"time": (50, 60)})

    for case in random_cases(draft):
        assert case["images"].min() >= 0.25
        assert case["images"].max() <= 0.5
        assert set(np.unique(case["tokens"])) == {7, 8, 9}


def test_given_sizes_are_used() -> None:
    draft = graph(IMAGES, sizes={"height": (16, 32), "width": (32, 48), "batch": (2, 6)})

    assert sizes_of(draft) == {"batch": (2, 6), "height": (16, 32), "width": (32, 48)}
    assert {case["images"].shape for case in random_cases(draft)} == {
        (2, 1, 16, 32), (6, 1, 16, 32), (2, 1, 32, 48), (6, 1, 32, 48),
    }  # fmt: skip
    assert trace_example(draft)[0].shape == (6, 1, 32, 48)


def test_sizes_and_ranges_of_nothing_are_refused() -> None:
    with pytest.raises(DraftError, match="sizes are given for depth"):
        random_cases(graph(IMAGES, sizes={"depth": (1, 2)}))
    with pytest.raises(DraftError, match="ranges are given for y"):
        random_cases(graph(IMAGES, ranges={"y": (0, 1)}))


def test_a_name_is_used_once() -> None:
    draft = GraphDraft(factory="nets:make", inputs=(TOKENS,), outputs=(tensor("tokens", "int64", "batch"),))

    with pytest.raises(DraftError, match="inputs and outputs share the name tokens"):
        check_cases(draft, [])


def case(batch: int, time: int, dtype: str = "int64") -> dict[str, np.ndarray]:
    return {"tokens": np.zeros((batch, time), dtype)}


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ([], "at least two sizes of batch, time"),
        ([case(1, 3), case(2, 3)], "at least two sizes of time"),
        ([case(1, 3, "int32"), case(2, 4)], r"'tokens' is int32\[1, 3\] where int64\[batch, time\] belongs"),
        (
            [{"ids": np.zeros((1, 2), np.int64)}],
            r"case 0 has the inputs \['ids'\] where the graph has \['tokens'\]",
        ),
        ([{"tokens": np.zeros(3, np.int64)}], r"'tokens' is int64\[3\]"),
    ],
)
def test_cases_that_do_not_fit_are_refused(cases: list[dict[str, np.ndarray]], complaint: str) -> None:
    with pytest.raises(DraftError, match=complaint):
        check_cases(graph(TOKENS), cases)


def test_a_dimension_has_one_size_in_all_tensors() -> None:
    arrays: dict[str, Array] = {"tokens": np.zeros((2, 5), np.int64), "state": np.zeros((3, 4), np.float32)}

    with pytest.raises(DraftError, match=r"'state' is .* with {'batch': 2, 'time': 5}"):
        bind([TOKENS, tensor("state", "float32", "batch", 4)], arrays)


def test_places_and_arrays_are_named_for_people() -> None:
    assert at({"batch": 2, "time": 5}) == "batch 2, time 5"
    assert at({}) == "its fixed shape"
    assert described(np.zeros((2, 3), np.float32)) == "float32[2, 3]"
