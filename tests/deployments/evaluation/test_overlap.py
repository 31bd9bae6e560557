import numpy as np
import pytest

from deployments.evaluation.overlap import agreement, frechet, moments, overlap, vendi


def test_the_frechet_distance_of_normal_distributions_is_known() -> None:
    a, b = (np.zeros(2), np.diag([1.0, 2.0])), (np.array([3.0, 4.0]), np.diag([3.0, 1.0]))
    assert frechet(a, b) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)
    assert frechet(a, a) == pytest.approx(0)


@pytest.mark.parametrize("width", [3, 40])
def test_few_items_of_many_features_are_as_many_of_few(width: int) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(20, width)), 2 * random.normal(size=(15, width)) + 1
    times = random.integers(0, 3, 20).astype(np.float64)
    repeated = np.repeat(a, times.astype(int), axis=0)
    covariances = [np.cov(each.T) for each in (repeated, b)]
    wanted = np.square(repeated.mean(0) - b.mean(0)).sum() + sum(map(np.trace, covariances))
    wanted -= 2 * np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    assert frechet(moments(a, times), moments(b, np.ones(15))) == pytest.approx(wanted, rel=1e-4)
    assert vendi(a, times) == pytest.approx(vendi(repeated, np.ones(len(repeated))))


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
