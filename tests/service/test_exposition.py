import string

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.errors import Unavailable
from deployments.messages import Exposition
from deployments.metrics import Metrics
from service.exposition import merge
from tests.service.models import Models

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family stands in one piece"
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def exposition(replica: str, registry: CollectorRegistry) -> Exposition:
    return Exposition(replica, generate_latest(registry).decode())


def test_every_sample_of_every_replica_is_there_under_its_label() -> None:
    parts = []
    for replica, count in (("a", 1), ("b", 2)):
        metrics = Metrics(CollectorRegistry())
        metrics.requests.labels("poet", "/v1/completions", "200").inc(count)
        metrics.step_seconds.labels("poet", "decode").observe(0.0123 * count)
        parts.append(exposition(replica, metrics.registry))
    merged = samples(merge(parts))
    expected: Samples = {}
    for part in parts:
        for (name, labels), value in samples(part.text).items():
            expected[name, labels | {("replica", part.replica)}] = value
    assert merged == expected


names = st.text(string.ascii_lowercase, min_size=1, max_size=3)
label_values = st.text(max_size=8)


@examples(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            label_values,
            st.dictionaries(names, st.tuples(st.sampled_from("cgh"), label_values, st.floats(0))),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda part: part[0],
    )
)
def test_no_figure_and_no_label_is_lost_or_changed(
    processes: list[tuple[str, dict[str, tuple[str, str, float]]]],
) -> None:
    parts = []
    expected: Samples = {}
    for replica, fields in processes:
        registry = CollectorRegistry()
        for name, (kind, label, value) in fields.items():
            _metric(f"{name}_{kind}", kind, label, value, registry)
        part = exposition(replica, registry)
        parts.append(part)
        for (sample, labels), value in samples(part.text).items():
            expected[sample, labels | {("replica", replica)}] = value
    merged = samples(merge(parts))
    assert merged.keys() == expected.keys()
    assert all(merged[key] == value or value != value for key, value in expected.items())  # noqa: PLR0124 - NaN


def _metric(name: str, kind: str, label: str, value: float, registry: CollectorRegistry) -> None:
    if kind == "c":
        Counter(name, 'A "counter"\\\n', ["l"], registry=registry).labels(label).inc(value)
    elif kind == "g":
        Gauge(name, "A gauge", registry=registry).set(value)
    else:
        Histogram(name, "A histogram", ["l"], registry=registry).labels(label).observe(value)


def test_a_label_set_may_be_empty() -> None:
    assert merge([Exposition("a", "# TYPE x gauge\nx{} 1\n")]) == '# TYPE x gauge\nx{replica="a"} 1\n'


def test_other_comments_and_blank_lines_are_left_out() -> None:
    assert (
        merge([Exposition("a", "# EOF\n\n# TYPE x gauge\n# note\nx 1\n")])
        == '# TYPE x gauge\nx{replica="a"} 1\n'
    )


def test_nothing_to_show() -> None:
    assert merge([]) == ""
    assert merge([Exposition("a", "")]) == ""


async def test_the_route_shows_this_process_and_those_behind_it(
    http: httpx.AsyncClient, models: Models
) -> None:
    behind = Metrics(CollectorRegistry())
    behind.live.labels("poet").set(3)
    models.others = (exposition("studio#1", behind.registry),)
    await http.post("/v1/completions", json={"model": "poet", "prompt": "a"})
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    assert found["atelier_live_rows", frozenset({("model", "poet"), ("replica", "studio#1")})] == 3
    door = {("model", "poet"), ("route", "/v1/completions"), ("status", "200"), ("replica", "gateway")}
    assert found["atelier_requests_total", frozenset(door)] == 1


async def test_a_replica_that_does_not_answer_fails_the_scrape(
    http: httpx.AsyncClient, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost() -> tuple[Exposition, ...]:
        raise Unavailable("A replica did not answer.")

    monkeypatch.setattr(models, "expositions", lost)
    assert (await http.get("/metrics")).status_code == 503
