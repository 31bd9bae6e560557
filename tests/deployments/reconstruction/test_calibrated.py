import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.errors import BadRequest
from deployments.reconstruction.calibrated import (
    Calibrated,
    adjusted,
    best_f1,
    conformal,
    distances,
    latents_of,
    normalized,
    quantile,
)

TEN = Calibrated(np.linspace(0, 0.1, 11, dtype=np.float32), 0.095)

finite = st.floats(-1e30, 1e30)
scores = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("score", "p_value"), [(-1, 1.0), (0.0, 1.0), (0.05, 7 / 12), (0.1, 2 / 12), (0.11, 1 / 12), (9, 1 / 12)]
)
def test_the_p_value_is_the_share_of_normal_scores_as_high(score: float, p_value: float) -> None:
    assert TEN.p_value(float(np.float32(score))) == pytest.approx(p_value)


def test_without_normal_scores_everything_is_possible() -> None:
    assert Calibrated(np.empty(0, np.float32), 0.5).p_value(3.0) == 1.0


@given(finite, st.booleans())
def test_at_its_threshold_a_score_is_in_the_middle(threshold: float, signed: bool) -> None:
    assert normalized(threshold, threshold, signed=signed) == pytest.approx(0.5)


@given(finite, finite, finite, st.booleans())
def test_a_higher_score_never_looks_more_normal(a: float, b: float, threshold: float, signed: bool) -> None:
    low, high = (normalized(score, threshold, signed=signed) for score in sorted((a, b)))
    assert 0 <= low <= high <= 1


def test_scores_below_zero_are_told_apart_where_normal_ones_are_there() -> None:
    assert Calibrated([-2.0, 1.0], 3.0).signed
    assert not Calibrated([-1e-7, 1.0], 3.0).signed
    assert not Calibrated([], 3.0).signed
    assert 0 < normalized(-2, 3.0, signed=True) < normalized(-1, 3.0, signed=True) < 0.5


def test_an_error_rounded_below_zero_is_no_error() -> None:
    assert normalized(-1e-9, 0.1) == normalized(0.0, 0.1) == 0


# -- thresholds --------------------------------------------------------------------------------------------------------


@given(scores, st.floats(0.001, 0.999), st.floats(-1e3, 1e3))
def test_above_a_conformal_threshold_are_those_whose_p_value_is_at_most_the_rate(
    normal: list[float], rate: float, score: float
) -> None:
    ascending = sorted(normal)
    if len(normal) < 1 / rate - 1 - 1e-9:
        with pytest.raises(BadRequest, match="needs at least"):
            conformal(ascending, rate)
        return
    threshold = conformal(ascending, rate)
    p_value = Calibrated(ascending, threshold).p_value(score)
    assert (score > threshold) == (p_value <= rate * (1 + 1e-9))


@pytest.mark.parametrize(
    ("rate", "least"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.07, 14), (0.001, 999), (0.5, 1)]
)
def test_how_many_items_a_rate_needs(rate: float, least: int) -> None:
    assert conformal([float(each) for each in range(least)], rate) == least - 1
    if least > 1:
        with pytest.raises(BadRequest, match=f"at least {least} normal items, not {least - 1}"):
            conformal([0.0] * (least - 1), rate)


def test_the_rate_holds_for_new_normal_items() -> None:
    random = np.random.default_rng(0)
    alarms = [
        float((random.normal(size=50) > conformal(np.sort(random.normal(size=99)).tolist(), 0.1)).mean())
        for _ in range(200)
    ]
    assert np.mean(alarms) == pytest.approx(0.1, abs=0.01)


def test_a_quantile_lies_between_two_scores() -> None:
    assert quantile([0.0, 1.0], 0.75) == 0.75


def test_f1_separates_what_can_be_separated() -> None:
    assert best_f1([1.0, 2.0], [4.0, 5.0]) == (3.0, 1.0)


def test_where_nothing_tells_them_apart_everything_is_called_an_anomaly() -> None:
    threshold, f1 = best_f1([1.0, 1.0], [1.0, 1.0])
    assert threshold < 1.0
    assert f1 == pytest.approx(2 / 3)


@given(scores, scores)
@example([-5e-324], [0.0])
def test_no_threshold_has_a_higher_f1(normal: list[float], anomalous: list[float]) -> None:
    def f1_of(threshold: float) -> float:
        found = sum(each > threshold for each in anomalous)
        alarms = sum(each > threshold for each in normal)
        return 2 * found / (found + alarms + len(anomalous))

    threshold, f1 = best_f1(normal, anomalous)
    assert f1_of(threshold) == pytest.approx(f1)
    assert all(f1_of(each) <= f1 + 1e-12 for each in [*normal, *anomalous, -math.inf])


# -- Benjamini and Hochberg --------------------------------------------------------------------------------------------


def test_adjusted_p_values_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusting_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    found = adjusted(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    ordered = [q for _, q in sorted(zip(p_values, found, strict=True))]
    assert all(low <= high for low, high in pairwise(ordered))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_adjusted_p_values_reject_what_the_procedure_rejects(p_values: list[float], rate: float) -> None:
    ordered, count = sorted(p_values), len(p_values)
    most = max((k for k in range(1, count + 1) if ordered[k - 1] * count / k <= rate), default=0)
    assert sum(each <= rate for each in adjusted(p_values)) == most or len(set(p_values)) < count


# -- latents -----------------------------------------------------------------------------------------------------------


def test_latents_are_normal_at_distance_one() -> None:
    values = np.random.default_rng(0).normal(3, [1, 5], (500, 2)).astype(np.float32)
    found = latents_of(values)
    assert np.mean(np.square(found.distances)) == pytest.approx(1)
    assert list(found.distances) == sorted(found.distances)
    far = distances(values + 50, np.asarray(found.mean), np.asarray(found.spread))
    assert far.min() > max(found.distances)


def test_a_dimension_that_never_varies_divides_by_nothing() -> None:
    assert latents_of(np.zeros((3, 2), np.float32)).spread == (1.0, 1.0)
