import numpy as np
import pytest

from deployments.evaluation.detection import curves, detection, histogram, judged


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


def test_units_of_several_scores_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10) >= 6, 50)
    scores = labels.astype(np.float64) + np.repeat(random.normal(0, 1, 10), 50)  # alike within a unit
    alone = detection("x", scores, labels, 0.5, "key")
    together = detection("x", scores, labels, 0.5, "key", np.repeat(np.arange(10), 50))
    for name, figure in alone.items():
        assert together[name].value == figure.value
        assert together[name].high - together[name].low > 2 * (figure.high - figure.low)
    every = detection("x", scores, labels, 0.5, "key", np.arange(500))
    assert every == alone


def test_labels_of_one_kind_tell_nothing_apart() -> None:
    found = judged({"x": np.linspace(0, 1, 10)}, np.zeros(10, bool), None, "key")
    assert not found.figures
    assert [plot.title for plot in found.plots] == ["Scores"]
