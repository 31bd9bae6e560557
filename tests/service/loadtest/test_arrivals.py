import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loadtest.arrivals import schedule


def test_same_seed_same_times() -> None:
    assert schedule(20, 7, requests=50) == schedule(20, 7, requests=50)
    assert schedule(20, 7, requests=50) != schedule(20, 8, requests=50)


def test_more_requests_continue_the_same_schedule() -> None:
    assert schedule(20, 7, requests=80)[:50] == schedule(20, 7, requests=50)


def test_gaps_are_exponential_with_the_asked_mean() -> None:
    gaps = np.diff((0.0, *schedule(50, 0, requests=20_000)))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    expected = 1 - np.exp(-50 * np.sort(gaps))
    farthest = np.abs(expected - (np.arange(gaps.size) + 0.5) / gaps.size).max()
    assert farthest * np.sqrt(gaps.size) < 1.63  # Kolmogorov-Smirnov at 1 %


def test_counts_per_second_are_poisson() -> None:
    counts = np.bincount(np.array(schedule(30, 1, seconds=500)).astype(int))
    assert counts.var() == pytest.approx(counts.mean(), rel=0.2)


@given(
    rate=st.floats(0.1, 1000),
    seed=st.integers(0, 2**32),
    requests=st.integers(1, 200),
    seconds=st.floats(0.001, 5),
)
def test_ascending_and_within_both_bounds(rate: float, seed: int, requests: int, seconds: float) -> None:
    due = schedule(rate, seed, requests=requests, seconds=seconds)
    assert len(due) <= requests
    assert all(0 <= time < seconds for time in due)
    assert list(due) == sorted(due)
    assert due == schedule(rate, seed, requests=requests)[: len(due)]


def test_an_endless_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="number of requests or a duration"):
        schedule(1, 0)
