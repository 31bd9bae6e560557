import pytest

from deployments.pace import Pace


def test_nothing_is_known_before_something_has_finished() -> None:
    pace = Pace()
    assert pace.seconds(1000) == 0
    pace.begin(0.0)
    pace.measure(50, 1.0)
    assert pace.seconds(1000) == 0
    pace.finish(10, 10)
    assert pace.seconds(1000) == 20


def test_time_without_work_does_not_count() -> None:
    pace = Pace()
    for start in (0.0, 500.0, 10_000.0):
        pace.begin(start)
        pace.measure(100, start + 1)
    pace.finish(10, 10)
    assert pace.seconds(100) == pytest.approx(1)


def test_what_was_asked_counts_as_what_is_used_in_the_end() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.measure(100, 1.0)
    for _ in range(200):
        pace.finish(30, 300)
    assert pace.seconds(1000) == pytest.approx(1)


def test_the_last_seconds_count_most() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.finish(1, 1)
    for second in range(1, 61):
        pace.measure(10, float(second))
    assert pace.seconds(100) == pytest.approx(10)
    for second in range(61, 121):
        pace.measure(100, float(second))
    assert pace.seconds(100) == pytest.approx(1, rel=0.05)


def test_a_clock_that_stands_still_is_no_division_by_nothing() -> None:
    pace = Pace()
    pace.begin(1.0)
    pace.measure(10, 1.0)
    pace.measure(0, 0.5)
    pace.finish(1, 1)
    assert pace.seconds(100) == 0
    assert pace.seconds(0) == 0
