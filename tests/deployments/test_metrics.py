import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.metrics import SECONDS, Metrics


def test_every_figure_is_exported_under_one_prefix_with_a_sentence() -> None:
    metrics = Metrics(CollectorRegistry())
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    assert len(families) > 20
    assert all(family.name.startswith("atelier_") and family.documentation for family in families)


def test_histograms_of_time_are_in_seconds_and_begin_at_a_millisecond() -> None:
    metrics = Metrics(CollectorRegistry())
    for name, figure in vars(metrics).items():
        if name.endswith("_seconds") and figure._type == "histogram":
            assert figure._name.endswith("_seconds")
            assert figure._kwargs["buckets"] == SECONDS
    assert (SECONDS[0], list(SECONDS)) == (0.001, sorted(SECONDS))


def test_sums_are_exact() -> None:
    metrics = Metrics(CollectorRegistry())
    values = [0.2, 0.2, 0.2, 0.2, 17.0]
    for value in values:
        metrics.queue_seconds.labels("m").observe(value)
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    (family,) = [family for family in families if family.name == "atelier_queue_seconds"]
    samples = {sample.name: sample.value for sample in family.samples if "le" not in sample.labels}
    assert math.isclose(samples["atelier_queue_seconds_sum"], math.fsum(values))
    assert samples["atelier_queue_seconds_count"] == 5


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    one, other = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.images.labels("m").inc(3)
    assert one.registry.get_sample_value("atelier_images_total", {"model": "m"}) == 3
    assert other.registry.get_sample_value("atelier_images_total", {"model": "m"}) is None


@pytest.mark.parametrize("amount", [0.0, 0.001, 0.0011, 640.0, 641.0])
def test_a_tally_is_what_as_many_observations_are(amount: float) -> None:
    told, counted = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())

    for _ in range(3):
        told.inter_token_seconds.labels("m").observe(amount)
    counted.inter_token_seconds.labels("m").tally(amount, 3)

    assert _samples(told) == pytest.approx(_samples(counted))


def _samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


@given(st.lists(st.floats(0, 2000), max_size=40))
def test_amounts_together_count_as_each_alone(amounts: list[float]) -> None:
    one, many = (Metrics(CollectorRegistry()).scores.labels("m", "s") for _ in range(2))
    for amount in amounts:
        one.observe(amount)
    many.observe_all(amounts)
    expected, found = (
        {(s.name, *s.labels.items()): s.value for s in each._child_samples()} for each in (one, many)
    )
    assert found == pytest.approx(expected)
