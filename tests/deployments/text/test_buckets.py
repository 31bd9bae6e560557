import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.text.buckets import SHORTEST, Buckets


@pytest.mark.parametrize(("live", "rows"), [(1, 1), (2, 2), (3, 4), (5, 8), (16, 16), (17, 20), (20, 20)])
def test_rows_come_in_powers_of_two_up_to_all(live: int, rows: int) -> None:
    assert Buckets(20, 1024, exact=False).rows(live) == rows


@pytest.mark.parametrize(
    ("longest", "length"), [(1, SHORTEST), (256, 256), (257, 512), (512, 512), (513, 1000), (1000, 1000)]
)
def test_lengths_come_in_powers_of_two_up_to_the_context(longest: int, length: int) -> None:
    assert Buckets(20, 1000, exact=False).length(longest) == length


def test_a_context_may_be_shorter_than_the_shortest_length() -> None:
    assert Buckets(20, 64, exact=False).length(3) == 64


@given(st.integers(1, 300), st.integers(1, 5000), st.data())
def test_sizes_hold_what_they_are_for_and_are_few(capacity: int, context: int, data: st.DataObject) -> None:
    buckets = Buckets(capacity, context, exact=False)
    live, longest = data.draw(st.integers(1, capacity)), data.draw(st.integers(1, context))
    assert live <= buckets.rows(live) <= capacity
    assert longest <= buckets.length(longest) <= context
    assert len({buckets.rows(each) for each in range(1, capacity + 1)}) <= capacity.bit_length() + 1
    exact = Buckets(capacity, context, exact=True)
    assert (exact.rows(live), exact.length(longest)) == (live, longest)
