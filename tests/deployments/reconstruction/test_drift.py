import logging

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.metrics import Metrics
from deployments.reconstruction.calibrated import Calibrated, latents_of
from deployments.reconstruction.drift import EVERY, LATENT, WINDOW, Drift, kolmogorov_smirnov, psi, shift

RANDOM = np.random.default_rng(0)
NORMAL = np.sort(RANDOM.normal(size=500))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def drift(registry: CollectorRegistry) -> Drift:
    return Drift("m", Metrics(registry))


def usual() -> Calibrated:
    latents = latents_of(np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32))
    return Calibrated(NORMAL, 2.0, latents=latents)


def feed(drift: Drift, values: np.ndarray, *, away: float = 0.0) -> None:
    """As requests of one item, each with a latent so far away."""
    for value, latent in zip(values, RANDOM.normal(away, size=(len(values), 4)), strict=True):
        arrived = drift.observe("l1", usual(), [float(value)], [latent])
        if arrived is not None:
            drift.compare(arrived)


def test_the_statistic_is_the_greatest_difference_of_the_distribution_functions() -> None:
    for other in (RANDOM.normal(0.3, size=70), np.round(RANDOM.normal(size=70)), NORMAL[-1:]):
        at = np.concatenate([NORMAL, other])
        difference = [abs((each >= NORMAL).mean() - (other <= each).mean()) for each in at]
        assert kolmogorov_smirnov(NORMAL, np.sort(other)) == pytest.approx(max(difference))


def test_the_index_grows_with_the_distance() -> None:
    same, near, far = (psi(NORMAL, np.sort(RANDOM.normal(by, size=500))) for by in (0, 0.5, 2))
    assert same < 0.1 < near < far


def test_equal_values_have_a_bin_of_their_own() -> None:
    zeros = np.zeros(100)
    assert psi(zeros, zeros) == pytest.approx(0)
    assert psi(zeros, np.ones(100)) > 1


def test_few_items_that_differ_by_chance_are_no_drift() -> None:
    found = [shift(np.sort(RANDOM.normal(size=20)), RANDOM.normal(size=100)) for _ in range(200)]
    assert np.mean([each.psi for each in found]) > 0.25  # by this alone most would be
    assert sum(each.warning for each in found) <= 2


def test_nothing_is_said_before_enough_have_come(drift: Drift) -> None:
    feed(drift, RANDOM.normal(9, size=EVERY - 1))
    assert drift.card == {}


def test_normal_items_are_no_drift(
    drift: Drift, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    feed(drift, RANDOM.normal(size=300))
    assert drift.card.keys() == {"l1", LATENT}
    assert drift.card["l1"]["items"] == 300
    assert not any(each["warning"] for each in drift.card.values())
    assert caplog.messages == []
    found = registry.get_sample_value("atelier_drift_psi", {"model": "m", "of": "l1"})
    assert found == drift.card["l1"]["psi"]
    assert registry.get_sample_value("atelier_drift_ks", {"model": "m", "of": LATENT}) is not None


def test_a_drift_of_scores_is_told_once(drift: Drift, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        feed(drift, RANDOM.normal(3, size=400))
    assert drift.card["l1"]["warning"]
    assert not drift.card[LATENT]["warning"]
    (message,) = caplog.messages
    assert message.startswith("m: l1 of the last 100 items has drifted")


def test_a_drift_of_latents(drift: Drift) -> None:
    feed(drift, RANDOM.normal(size=200), away=3.0)
    assert drift.card[LATENT]["warning"]
    assert not drift.card["l1"]["warning"]


def test_what_is_long_ago_is_forgotten(drift: Drift) -> None:
    feed(drift, RANDOM.normal(5, size=200))
    feed(drift, RANDOM.normal(size=WINDOW))
    assert drift.card["l1"]["items"] == WINDOW
    assert not drift.card["l1"]["warning"]


def test_a_large_request_counts_as_many(drift: Drift) -> None:
    arrived = drift.observe("l1", usual(), RANDOM.normal(size=3 * WINDOW).tolist(), [])
    assert arrived is not None
    drift.compare(arrived)
    assert drift.card["l1"]["items"] == WINDOW
