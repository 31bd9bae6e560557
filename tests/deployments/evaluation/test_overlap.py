import numpy as np
import pytest

from deployments.evaluation.overlap import agreement, frechet, overlap, vendi


def test_the_frechet_distance_of_normal_distributions_is_known() -> None:
    a, b = (np.zeros(2), np.diag([1.0, 4.0])), (np.array([3.0, 4.0]), np.diag([9.0, 1.0]))
    assert frechet(a, b) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)
    assert frechet(a, a) == pytest.approx(0)


def test_vendi_counts_what_is_different() -> None:
    axes = np.eye(4)
    assert vendi(axes, np.ones(4)) == pytest.approx(4)
    assert vendi(np.ones((5, 3)), np.ones(5)) == pytest.approx(1)
    assert vendi(axes, np.array([1.0, 1, 0, 0])) == pytest.approx(2)


def test_samples_of_one_distribution_overlap_and_others_do_not() -> None:
    random = np.random.default_rng(0)
    real, same, far, few = random.normal(size=(300, 4)), *random.normal(size=(2, 300, 4)), None
    far = far + 50
    few = np.tile(same[:8], (40, 1)) + random.normal(0, 1e-3, (320, 4))
    alike, apart, narrow = (overlap(real, each, "net:1", "key") for each in (same, far, few))
    assert alike["frechet"].value < 0.2
    assert apart["frechet"].value > 1000
    for name in ("precision", "recall", "coverage"):
        assert alike[name].value > 0.8
        assert apart[name].value == 0
    assert narrow["coverage"].value < 0.3
    assert narrow["precision"].value > 0.8
    assert all(each.low <= each.value <= each.high for each in alike.values())


def test_agreement_is_that_of_the_nearest_real_item() -> None:
    random = np.random.default_rng(0)
    words = ["a", "b"] * 20
    features = np.array([[0.0], [10.0]] * 20) + random.normal(0, 0.1, (40, 1))
    wanted = ["a"] * 30 + ["b"] * 10
    figure = agreement((features, words), (np.zeros((40, 1)), wanted), "net:1", "key")
    assert figure.value == 0.75
    assert figure.about.endswith("of the data itself 1")
