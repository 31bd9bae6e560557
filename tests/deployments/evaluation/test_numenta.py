"""NAB scores with intervals, of steps and of alarms."""

from datetime import datetime, timedelta

import numpy as np

from deployments.evaluation.numenta import benchmark
from model_store import nab
from model_store.tabling import Alarms


def series(*windows: nab.Span, steps: int = 400) -> nab.Series:
    start = datetime(2026, 1, 1)  # noqa: DTZ001
    times = tuple(start + timedelta(minutes=place) for place in range(steps))
    return nab.Series("x", times, np.sin(np.arange(steps)), windows)


def test_alarms_are_fewer_than_steps_above_the_threshold() -> None:
    judged = [series((200, 220)), series()]
    scores = [np.zeros(400), np.zeros(400)]
    scores[0][205:215] = 3.0
    scores[1][300:320] = 3.0  # of twenty false alarms one is left
    figures = benchmark(judged, scores, 2.0, Alarms(), "key")
    assert next(iter(figures)) == "nab.standard"
    assert len(figures) == 12
    assert figures["nab.standard"].value < figures["nab_alarms.standard"].value
    assert figures["nab_alarms.standard"].value == figures["nab_own_alarms.standard"].value
    assert figures["nab_own_alarms.reward_low_FP_rate"].value < figures["nab_own_alarms.standard"].value
    exact = nab.nab_scores(judged, scores)
    for profile in nab.PROFILES:
        assert figures[f"nab.{profile}"].value == float(f"{exact[profile].value:.6g}")
    own = figures["nab_own_alarms.standard"]
    assert own.low <= own.value <= own.high
    assert figures["nab_gaussian.standard"].higher_is_better is None


def test_a_threshold_above_all_finds_nothing() -> None:
    judged = [series((200, 220))]
    figures = benchmark(judged, [np.arange(400.0)], 1e9, Alarms(), "key")
    assert figures["nab_own_alarms.standard"].value == 0
    # Rising scores: the best threshold still finds nothing, or what lies behind the window is false.
    assert figures["nab_alarms.standard"].value >= 0
