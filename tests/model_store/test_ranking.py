"""Areas under curves, beside scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from model_store.ranking import Ranked, auroc


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_weighted_figures_are_scikit_learns(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 30))
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    labels[:2] = True, False
    scores = np.array(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), np.float32)
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)), np.float64)
    ranked = Ranked(scores, labels)
    wanted = metrics.roc_auc_score(labels, scores, sample_weight=weights)
    assert ranked.auroc(weights) == pytest.approx(wanted)
    wanted = metrics.average_precision_score(labels, scores, sample_weight=weights)
    assert ranked.average_precision(weights) == pytest.approx(wanted)
    best = max(metrics.f1_score(labels, scores >= each, sample_weight=weights) for each in set(scores))
    assert ranked.best_f1(weights) == pytest.approx(best)


@given(st.lists(st.integers(0, 6), min_size=1), st.lists(st.integers(0, 6), min_size=1))
def test_it_counts_the_pairs_in_the_right_order(normal: list[int], anomalous: list[int]) -> None:
    pairs = [(a > n) + 0.5 * (a == n) for a in anomalous for n in normal]
    assert auroc(np.array(normal), np.array(anomalous)) == pytest.approx(sum(pairs) / len(pairs))
