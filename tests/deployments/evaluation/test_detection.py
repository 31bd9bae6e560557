import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from deployments.evaluation.detection import Ranked, curves, detection, histogram


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_weighted_figures_are_scikit_learns(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 30))
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    labels[:2] = True, False
    scores = np.array(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), np.float32)
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)), np.float64)
    ranked = Ranked(scores, labels)
    assert ranked.auroc(weights) == pytest.approx(
        metrics.roc_auc_score(labels, scores, sample_weight=weights)
    )
    wanted = metrics.average_precision_score(labels, scores, sample_weight=weights)
    assert ranked.average_precision(weights) == pytest.approx(wanted)
    best = max(metrics.f1_score(labels, scores >= each, sample_weight=weights) for each in set(scores))
    assert ranked.best_f1(weights) == pytest.approx(best)


def test_a_perfect_score_with_a_sound_threshold() -> None:
    labels = np.arange(20) >= 15
    figures = detection("l1", labels.astype(np.float32), labels, 0.5, "key")
    assert {name: each.value for name, each in figures.items()} == {
        "auroc.l1": 1,
        "aupr.l1": 1,
        "best_f1.l1": 1,
        "f1.l1": 1,
        "false_alarms.l1": 0,
    }


def test_without_a_threshold_nothing_is_said_of_one() -> None:
    labels = np.arange(20) >= 15
    assert "f1.l1" not in detection("l1", labels.astype(np.float32), labels, None, "key")


def test_curves_of_many_items_have_few_points_and_keep_their_ends() -> None:
    random = np.random.default_rng(0)
    labels = random.random(5000) < 0.5
    for plot in curves({"a": random.random(5000).astype(np.float32)}, labels):
        [curve] = plot.curves
        assert len(curve.x) <= 210
        assert (curve.x[0], curve.x[-1]) == (0, 1)
        assert list(curve.x) == sorted(curve.x)


def test_a_histogram_is_of_shares_even_where_all_values_are_the_same() -> None:
    plot = histogram("t", "x", {"all": np.ones(7)}, {"inside": 1.0, "outside": 9.0})
    assert sum(plot.curves[0].y) == pytest.approx(2)  # each step has two corners
    assert plot.marks == {"inside": 1.0}
