"""Who takes part in a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.image.turns import Turn, Turns

PIXELS = 64


def turns(*whole: int) -> list[Turn]:
    """Pictures that have just begun."""
    return [Turn(each, each, PIXELS, 8) for each in whole]


@pytest.mark.parametrize(
    ("whole", "first"),
    [
        ((), []),
        ((4,), [0]),
        ((4, 4), [0, 1]),
        ((32, 30, 28), [0, 1, 2]),
        ((32, 4, 30), [1]),
        ((32, 4), [1]),
        ((4, 8, 32, 40), [0, 1]),
        ((4, 4, 32), [0, 1, 2]),  # two thirds of a step of all
        ((4, 8, 16, 32), [0, 1, 2, 3]),  # some are neither short nor long
        ((4, 9, 32), [0, 1, 2]),
        ((4, 15), [0, 1]),
    ],
)
def test_those_who_are_much_shorter_go_first(whole: tuple[int, ...], first: list[int]) -> None:
    assert Turns().choose(turns(*whole)) == first


def test_who_is_nearly_done_does_not_stand_back() -> None:
    short, (long,) = Turn(4, 2, PIXELS, 8), turns(32)
    assert Turns().choose([short, Turn(32, 8, PIXELS, 8)]) == [0]
    assert Turns().choose([short, Turn(32, 7, PIXELS, 8)]) == [0, 1]
    assert Turns().choose([short, long, Turn(32, 7, PIXELS, 8)]) == [0, 1, 2]


def test_equals_never_pass_each_other() -> None:
    assert Turns().choose([Turn(32, left, PIXELS, 8) for left in (1, 5, 9, 32)]) == [0, 1, 2, 3]


def test_nobody_stands_back_for_ever() -> None:
    waiting = [Turn(4, 4, PIXELS, 8), Turn(32, 32, PIXELS, 1), Turn(32, 32, PIXELS, 0)]
    assert Turns().choose(waiting) == [0, 1, 2]
    assert Turns().choose(waiting[:2]) == [0]


def measured(start: float, slope: float) -> Turns:
    """After runs that took `start` seconds and `slope` more for each row."""
    made = Turns()
    for count in (1, 8, 3, 8, 16, 2) * 5:
        made.measure(count * PIXELS, start + slope * count)
    return made


def test_where_a_run_costs_the_same_whatever_is_in_it_nobody_goes_first() -> None:
    waiting = turns(4, *[32] * 8)
    assert measured(1.0, 0.0).choose(waiting) == list(range(9))
    assert measured(8.0, 1.0).choose(waiting) == list(range(9))
    assert measured(4.0, 1.0).choose(waiting) == [0]
    assert measured(0.0, 0.5).choose(waiting) == [0]


def test_runs_of_one_size_tell_nothing() -> None:
    made = Turns()
    for _ in range(50):
        made.measure(8 * PIXELS, 1.0)
    assert made.choose(turns(4, *[32] * 8)) == [0]


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(1, 100), st.integers(1, 1 << 20), st.integers(-3, 25)),
        min_size=1,
        max_size=32,
    )
)
def test_some_go_and_the_shortest_is_among_them(drawn: list[tuple[int, int, int, int]]) -> None:
    waiting = [Turn(*each) for each in drawn]
    chosen = measured(0.01, 0.001).choose(waiting)
    assert chosen == sorted(set(chosen))
    assert min(range(len(waiting)), key=lambda place: waiting[place].whole) in chosen
