"""Several hosts from one file: each with its own models and replicas, one gateway in front."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests import reference
from tests.e2e.conftest import Service, end, short_folder, start


@pytest.fixture(scope="module")
def hosts(tiny_store: Path) -> Iterator[Service]:
    """The example of the documentation, with the tiny models in the place of the shipped ones."""
    [example] = re.findall(r"```yaml\n(.*?)```", reference.page(), re.DOTALL)
    config = yaml.safe_load(example)
    pictures, writers = config["hosts"]
    pictures.update(models=["tiny-ae", "tiny-gan"], store=str(tiny_store))
    writers.update(models=["tiny-text:1"], store=str(tiny_store), num_cpus=0.5)
    with short_folder() as folder:
        file = folder / "hosts.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        running = start(folder, "--hosts", str(file))
        yield running
        end(running)


def names(url: str) -> set[str]:
    return {entry["id"] for entry in requests.get(f"{url}/v1/models", timeout=10).json()["data"]}


def test_the_gateway_knows_every_host_and_a_host_itself(hosts: Service) -> None:
    assert names(hosts.url) == {"tiny-ae", "tiny-gan", "tiny-text"}
    assert names(f"{hosts.url}/pictures") == {"tiny-ae", "tiny-gan"}
    assert names(f"{hosts.url}/writers") == {"tiny-text"}


def test_a_request_goes_to_the_host_of_its_model(hosts: Service) -> None:
    body = {"model": "tiny-text", "prompt": "abc", "max_tokens": 2, "temperature": 0}
    for path in ("", "/writers"):
        answer = requests.post(f"{hosts.url}{path}/v1/completions", json=body, timeout=30)
        assert answer.json()["choices"][0]["text"] == "de"
    assert requests.post(f"{hosts.url}/pictures/v1/completions", json=body, timeout=30).status_code == 404


def test_metrics_gather_every_replica_of_every_host(hosts: Service) -> None:
    loaded = [
        (sample.labels["model"], sample.labels["replica"])
        for family in text_string_to_metric_families(requests.get(f"{hosts.url}/metrics", timeout=10).text)
        for sample in family.samples
        if sample.name == "atelier_model_info"
    ]
    assert sorted(model for model, _ in loaded) == ["tiny-ae", "tiny-gan", "tiny-text", "tiny-text"]
    assert len({replica for _, replica in loaded}) == 3
