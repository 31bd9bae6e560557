import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.evaluation.estimates import Sampling, difference, estimate, mean


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1000)
    figure = estimate(mean(values), Sampling.of("a", 1000), better=True, about="")
    half = 1.96 * values.std() / np.sqrt(1000)
    assert figure.value == pytest.approx(values.mean(), rel=1e-5)
    assert figure.low == pytest.approx(values.mean() - half, abs=0.03)
    assert figure.high == pytest.approx(values.mean() + half, abs=0.03)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_every_draw_has_as_many_of_each_stratum(strata: list[int]) -> None:
    kinds = np.array(strata)
    for weights in Sampling("key", kinds).draws(3):
        for each in np.unique(kinds):
            assert weights[kinds == each].sum() == (kinds == each).sum()


def test_the_same_items_are_paired_and_others_are_independent() -> None:
    random = np.random.default_rng(1)
    hard = random.normal(0, 5, 500)  # what both find hard
    a, b = hard + 0.2 + random.normal(0, 0.1, 500), hard + random.normal(0, 0.1, 500)
    one, other, elsewhere = (
        estimate(mean(values), Sampling.of(key, 500), better=True, about="")
        for values, key in ((a, "x"), (b, "x"), (b, "y"))
    )
    paired, unpaired = difference(one, other), difference(one, elsewhere)
    assert paired.paired
    assert paired.certain
    assert paired.low < 0.2 < paired.high
    assert not unpaired.paired
    assert not unpaired.certain
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)


def test_centred_draws_keep_their_spread_and_stay_within_bounds() -> None:
    def variety(weights: np.ndarray) -> float:
        return float(np.count_nonzero(weights) / len(weights))

    figure = estimate(variety, Sampling.of("a", 100), better=True, about="", centred=True, bounds=(0, 1))
    assert figure.value == 1
    assert 0.9 < figure.low < figure.high == 1
