import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.nab import (
    PROFILES,
    Doubles,
    Profile,
    Series,
    Swept,
    gained,
    nab_scores,
    read,
    scaled,
    windowed_gaussian,
)


def labelled(size: int, *windows: tuple[int, int]) -> Series:
    start = datetime(2020, 1, 1)  # noqa: DTZ001 - the benchmark's have no zone
    stamps = tuple(start + timedelta(minutes=place) for place in range(size))
    return Series("made up", stamps, np.zeros(size), windows)


def at(size: int, *places: int) -> Doubles:
    scores = np.zeros(size)
    scores[list(places)] = 1.0
    return scores


def standard(series: Series, scores: Doubles) -> float:
    return nab_scores([series], [scores])["standard"].value


def worth(place: float) -> float:
    return 2 / (1 + math.exp(5 * place)) - 1


def plainly(series: Series, scores: Doubles, threshold: float, profile: Profile) -> float:
    """The raw score at one threshold, step by step, as the paper tells it."""
    total = 0.0
    best = dict.fromkeys(series.windows, -profile.false_negative)
    for step in range(series.probation, len(scores)):
        if scores[step] < threshold:
            continue
        window = next((w for w in series.windows if w[0] <= step <= w[1]), None)
        if window:
            width = window[1] - window[0] + 1
            gain = profile.true_positive * worth(-(window[1] - step + 1) / width) / worth(-1)
            best[window] = max(best[window], gain)
            continue
        past = [w for w in series.windows if w[1] < step]
        behind = (step - past[-1][1]) / max(past[-1][1] - past[-1][0], 1) if past else 3.0
        total += profile.false_positive * (worth(behind) if behind < 3 else -1.0)
    return total + sum(best.values())


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=40, max_size=40),
    st.sampled_from(sorted(PROFILES)),
)
def test_the_best_of_all_thresholds_is_found(scores: list[float], name: str) -> None:
    series, profile = labelled(40, (8, 13), (20, 24)), PROFILES[name]
    values = np.array(scores)
    raw = max(plainly(series, values, threshold, profile) for threshold in [2.0, *set(scores)])
    null, perfect = -2 * profile.false_negative, 2 * profile.true_positive
    found = nab_scores([series], [values])[name]
    assert found.value == pytest.approx(100 * (raw - null) / (perfect - null))
    assert plainly(series, values, found.threshold, profile) == pytest.approx(raw)


def test_nothing_detected_is_zero_and_everything_at_once_a_hundred() -> None:
    series = labelled(100, (30, 39), (60, 69))
    assert standard(series, at(100, 30, 60)) == pytest.approx(100)
    assert standard(series, np.zeros(100)) == 0  # every step an alarm is worse than none
    assert nab_scores([series], [np.zeros(100)])["standard"].threshold == math.inf


def test_early_is_better_than_late_and_once_is_enough() -> None:
    series = labelled(100, (30, 39))
    early, late, twice = (standard(series, at(100, *steps)) for steps in [(31,), (38,), (31, 38)])
    assert early > late > 0
    assert twice == early


def test_false_alarms_cost_more_far_from_a_window_and_by_the_profile() -> None:
    series = labelled(100, (30, 39))
    near, far = (nab_scores([series], [at(100, 30, step)]) for step in (40, 90))
    assert near["standard"].value > far["standard"].value
    assert far["standard"].value == pytest.approx(100 - 100 * 0.11 / 2)
    assert far["reward_low_FP_rate"].value == pytest.approx(100 - 100 * 0.22 / 2)
    missed = nab_scores([labelled(100, (30, 39), (60, 69))], [at(100, 30)])
    assert missed["reward_low_FN_rate"].value == pytest.approx(100 * 3 / 6)


def test_the_first_steps_are_not_judged() -> None:
    series = labelled(100, (30, 39))
    assert series.probation == 15
    assert labelled(100_000).probation == 750
    assert standard(series, at(100, 0, 14, 30)) == pytest.approx(100)


def test_one_threshold_holds_for_all_series() -> None:
    series = [labelled(100, (30, 39)), labelled(100, (30, 39))]
    low = at(100, 30) * 0.5
    low[50:95] = 0.4  # below the other's scores' scale: not in the way
    found = nab_scores(series, [at(100, 30), low])["standard"]
    assert found.value == pytest.approx(100)
    assert found.threshold == 0.5


def test_windows_may_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data" / "kind").mkdir(parents=True)
    rows = "".join(f"2020-01-01 00:{minute:02}:00,{minute}.5\n" for minute in range(10))
    (tmp_path / "data" / "kind" / "a.csv").write_text("timestamp,value\n" + rows)
    window = ["2020-01-01 00:03:00.000000", "2020-01-01 00:05:00.000000"]
    labels = {"kind/a.csv": [window], "kind/elsewhere.csv": []}
    (tmp_path / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    (series,) = read(tmp_path)
    assert (series.name, series.windows, series.probation) == ("kind/a.csv", ((3, 5),), 1)
    assert series.values.tolist() == [minute + 0.5 for minute in range(10)]


def slowly(values: list[float], window: int, every: int) -> list[float]:
    """The detector as a loop over a buffer."""
    kept: list[float] = []
    later: list[float] = []
    scores, mean, deviation = [], 0.0, 1.0
    for value in values:
        far = abs(value - mean) / deviation
        scores.append(1 - 0.5 * math.erfc(far / math.sqrt(2)) if kept else 0.0)
        if len(kept) < window:
            kept.append(value)
        else:
            later.append(value)
            if len(later) < every:
                continue
            kept, later = kept[every:] + later, []
        mean, deviation = float(np.mean(kept)), float(np.std(kept)) or 1e-6
    return scores


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=60))
def test_the_windowed_gaussian_is_the_benchmarks(values: list[float]) -> None:
    found = windowed_gaussian(np.array(values), window=20, every=4)
    assert found == pytest.approx(slowly(values, 20, 4), abs=1e-9)


def test_series_count_as_often_as_they_are_drawn() -> None:
    drawn = np.random.default_rng(3)
    series = [labelled(400, (100, 120), (300, 330)), labelled(400, (200, 240)), labelled(400)]
    scores = [drawn.uniform(0, 1, 400).round(2) for _ in series]
    for profile in PROFILES.values():
        swept = Swept(series, scores, profile)
        several = Swept([series[0], series[0], series[2]], [scores[0], scores[0], scores[2]], profile)
        weighted = swept.best(np.array([2.0, 0.0, 1.0]))
        assert weighted.value == pytest.approx(several.best().value)
        # Detecting at the best threshold gives as much.
        gains = [
            gained(each, own >= swept.best().threshold, profile)
            for each, own in zip(series, scores, strict=True)
        ]
        assert scaled(sum(gains), 3, profile) == pytest.approx(swept.best().value)
