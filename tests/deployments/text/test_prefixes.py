"""Accounting of kept prefixes, against the plainest way to keep books."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.text.prefixes import SHORTEST, Prefixes, as_array, common
from model_store.session import Array

LONG = as_array(range(100))


def up_to(size: int, *more: int) -> Array:
    """The first numbers, then others."""
    return as_array([*range(size), *more])


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [
        ((), (), 0),
        ((), (1,), 0),
        ((1,), (1,), 1),
        ((1, 2), (1,), 1),
        ((1, 2, 3), (1, 9, 3), 1),
        ((1,), (2,), 0),
    ],
)
def test_what_two_sequences_have_in_common(
    first: tuple[int, ...], second: tuple[int, ...], length: int
) -> None:
    assert common(as_array(first), as_array(second)) == length
    assert common(as_array(second), as_array(first)) == length


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_what_any_two_sequences_have_in_common(first: list[int], second: list[int]) -> None:
    length = common(as_array(first), as_array(second))
    assert first[:length] == second[:length]
    assert first[length : length + 1] != second[length : length + 1] or length == len(first) == len(second)


def test_nothing_is_found_where_nothing_is_kept() -> None:
    assert Prefixes(4).find(LONG, "") == (-1, 0)


def test_the_longest_common_start_is_found() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(1, up_to(20, 7), "")
    prefixes.keep(3, up_to(40, 7), "")
    prefixes.keep(0, up_to(30, 7), "")
    assert prefixes.find(LONG, "") == (3, 40)
    assert prefixes.find(LONG[:25], "") == (1 if common(up_to(20, 7), LONG[:25]) == 25 else 3, 25)


def test_a_start_that_is_computed_faster_is_not_looked_after() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(0, up_to(SHORTEST, 999), "")
    assert prefixes.find(up_to(SHORTEST - 1, 5), "") == (-1, 0)
    assert prefixes.find(up_to(SHORTEST, 5), "") == (0, SHORTEST)


def test_scopes_do_not_see_each_other() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(0, LONG, "ann")
    assert prefixes.find(LONG, "bob") == (-1, 0)
    assert prefixes.find(LONG, "") == (-1, 0)
    assert prefixes.find(LONG, "ann") == (0, 100)


def test_what_is_forgotten_is_not_found() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(0, LONG, "")
    assert (0 in prefixes, prefixes.size(0), prefixes.size(1)) == (True, 100, 0)
    prefixes.forget(0)
    prefixes.forget(1)
    assert (0 in prefixes, len(prefixes), prefixes.find(LONG, "")) == (False, 0, (-1, 0))


def test_a_slot_holds_one_prefix() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(0, LONG, "")
    prefixes.keep(0, LONG + 1, "")
    assert len(prefixes) == 1
    assert prefixes.find(LONG, "") == (-1, 0)


def test_a_moved_prefix_takes_the_place_of_another() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(0, LONG, "")
    prefixes.keep(2, LONG + 1, "")
    assert prefixes.move(0, 2) == 100
    assert (0 in prefixes, prefixes.find(LONG, ""), prefixes.find(LONG + 1, "")) == (False, (2, 100), (-1, 0))


def test_room_is_a_free_slot_then_the_least_recently_used() -> None:
    prefixes = Prefixes(4)
    prefixes.keep(0, LONG, "")
    for slot in (2, 1, 3):
        room = prefixes.room(1)
        assert room is not None
        assert room not in prefixes
        prefixes.keep(slot, LONG + slot, "")
    assert prefixes.room(1) == 2
    prefixes.find(LONG + 2, "")  # used: no longer the oldest
    assert prefixes.room(1) == 1
    assert prefixes.room(1, but=1) == 3
    assert prefixes.room(2, but=3) == 2
    assert prefixes.room(4) is None
    assert prefixes.room(3, but=3) is None


def test_which_is_older() -> None:
    prefixes = Prefixes(3)
    prefixes.keep(0, LONG, "")
    prefixes.keep(1, LONG + 1, "")
    assert prefixes.older(0, 1)
    assert not prefixes.older(1, 0)
    assert prefixes.older(2, 0)  # an empty slot is the oldest
    assert not prefixes.older(0, 2)
    prefixes.move(1, 2)  # it stays as old as it was
    assert prefixes.older(0, 2)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.lists(st.integers(0, 1), min_size=20, max_size=40), st.sampled_from("ab")
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 1), min_size=20, max_size=40),
)
def test_the_longest_is_found_whatever_is_kept(
    kept: list[tuple[int, list[int], str]], wanted: list[int]
) -> None:
    prefixes, books = Prefixes(4), dict[int, tuple[list[int], str]]()
    for slot, tokens, scope in kept:
        prefixes.keep(slot, as_array(tokens), scope)
        books[slot] = tokens, scope
    lengths = {
        slot: sum(np.cumprod([a == b for a, b in zip(tokens, wanted, strict=False)]))
        for slot, (tokens, scope) in books.items()
        if scope == "a"
    }
    longest = max(lengths.values(), default=0)
    slot, length = prefixes.find(as_array(wanted), "a")
    if longest < SHORTEST:
        assert (slot, length) == (-1, 0)
    else:
        assert length == longest == lengths[slot]
