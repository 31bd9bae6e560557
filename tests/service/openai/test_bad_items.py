"""Bad items over HTTP, by real engines over kilobyte packages: refused by index and field, and nobody else is."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.metrics import Metrics
from deployments.pictures import encode
from deployments.studio import Studio, open_studio
from service.api import create_app
from service.settings import Settings
from tests import packages, records

ROW = {"age": 48, "income": 950.0, "colour": "red"}
PICTURE = encode(np.full((1, 8, 8), 0.25, np.float32))
MODELS: dict[str, dict[str, Any]] = {
    "tiny-ae": {"image": base64.b64encode(PICTURE).decode()},
    "full-table": {"features": ROW},
    "tiny-series": {"series": [1.0, 2.0, 3.0]},
    "whole": {"series": [1.0] * 4},
}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    store: Path = tmp_path_factory.mktemp("store")
    packages.autoencoder(store)
    records.table(store)
    records.table(store, name="full-table", known=False, capabilities=["score", "reconstruct"])
    records.table(store, name="open-table", unknown=True)
    records.series(store, normalisation="series")
    records.series(store, name="whole", padding="none", normalisation="window")
    opened = open_studio(HostConfig(store=str(store), threads=1, device="cpu"), Metrics(CollectorRegistry()))
    yield opened
    opened.close()


@pytest.fixture
async def http(studio: Studio) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(studio, Settings(), studio._metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier") as client:
        yield client


def row(**features: Any) -> dict[str, Any]:
    return {"features": {**ROW, **features}}


def picture(data: bytes) -> dict[str, Any]:
    return {"image": base64.b64encode(data).decode()}


def tensor(value: float) -> dict[str, Any]:
    return {"tensor": {"data": [value] * 64}}


BAD: list[tuple[str, dict[str, Any], str]] = [
    # wrong names, types, ranges, categories never seen, nothing known
    ("full-table", row(height=1.8), "features.height"),
    ("full-table", row(age="48"), "features.age"),
    ("full-table", row(age=True), "features.age"),
    ("full-table", row(age=-1), "features.age"),
    ("full-table", row(income=1e300), "features.income"),
    ("full-table", row(colour=3), "features.colour"),
    ("full-table", row(colour="mauve"), "features.colour"),
    ("full-table", row(age=None), "features.age"),
    ("full-table", {"features": {}}, "features.age"),
    ("full-table", {"series": [1.0]}, "series"),
    ("full-table", {"tensor": {"data": [1.0]}}, "tensor.data"),
    ("tiny-table", row(age=None, income=None, colour=None), "features"),
    ("tiny-table", {"features": {}}, "features"),
    # windows longer than the series, steps that are no numbers
    ("whole", {"series": [1.0, 2.0]}, "series"),
    ("tiny-series", {"series": []}, "series"),
    ("tiny-series", {"series": [1.0, None]}, "series[1]"),
    ("tiny-series", {"series": [1.0, "2"]}, "series[1]"),
    ("tiny-series", {"series": [1.0, [2.0]]}, "series[1]"),
    ("tiny-series", {"series": [1.0, 1e300]}, "series[1]"),
    ("tiny-series", {"series": [1.0], "timestamps": [1, 2]}, "timestamps"),
    ("tiny-series", {"series": [1.0], "session": "none of ours"}, "session"),
    ("tiny-series", {"series": [1.0] * 2200}, "series"),
    ("tiny-series", {"features": ROW}, "features"),
    # pictures, and tensors in their place
    ("tiny-ae", picture(b"<svg/>"), "image"),
    ("tiny-ae", picture(PICTURE[:50]), "image"),
    ("tiny-ae", {"image": "https://example.org/a.png"}, "image"),
    ("tiny-ae", {"tensor": {"data": [0.5] * 63}}, "tensor.data"),
    ("tiny-ae", {"tensor": {"data": [0.5] * 64, "shape": [2, 32]}}, "tensor.shape"),
    ("tiny-ae", {"features": ROW}, "features"),
]


@pytest.mark.parametrize("route", ["anomalies", "reconstructions"])
@pytest.mark.parametrize(("model", "item", "place"), BAD)
async def test_a_bad_item_is_named_by_its_index_and_field(
    http: httpx.AsyncClient, route: str, model: str, item: dict[str, Any], place: str
) -> None:
    good = MODELS.get(model, {"features": ROW})
    answer = await http.post(f"/v1/{route}", json={"model": model, "input": [good, item, good]})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == f"input[1].{place}"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("model", "item"),
    [
        ("full-table", '{"features": {"age": %s}}'),
        ("tiny-series", '{"series": [%s]}'),
        ("tiny-ae", '{"tensor": {"data": [%s]}}'),
    ],
)
async def test_numbers_are_finite(http: httpx.AsyncClient, model: str, item: str, number: str) -> None:
    body = f'{{"model": "{model}", "input": [{item % number}]}}'
    answer = await http.post("/v1/anomalies", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text


async def test_a_number_that_overflows_in_the_model_is_its_own_items_fault(http: httpx.AsyncClient) -> None:
    items = [tensor(0.1), tensor(3e38)]
    answer = await http.post("/v1/anomalies", json={"model": "tiny-ae", "input": items})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")


async def test_a_word_never_seen_where_there_is_a_column_for_it(http: httpx.AsyncClient) -> None:
    body = {"model": "open-table", "input": [row(colour="mauve")]}
    assert (await http.post("/v1/anomalies", json=body)).status_code == 200


async def test_a_constant_series_is_no_error(http: httpx.AsyncClient) -> None:
    for model in ("tiny-series", "whole"):
        body = {"model": model, "input": [{"series": [5.0] * 6}]}
        answer = (await http.post("/v1/anomalies", json=body)).json()
        assert answer["data"][0]["score"] == 0


async def test_no_items_and_enormous_batches(http: httpx.AsyncClient) -> None:
    for route in ("anomalies", "reconstructions", "anomalies/calibrations"):
        for items in ([], [tensor(0.5)] * 5000):
            answer = await http.post(f"/v1/{route}", json={"model": "tiny-ae", "input": items})
            assert answer.status_code in (400, 413), answer.text
            assert answer.json()["error"]["param"] in ("input", None)


async def test_a_bad_item_leaves_other_requests_alone(http: httpx.AsyncClient) -> None:
    async def ask(items: list[dict[str, Any]]) -> httpx.Response:
        return await http.post("/v1/anomalies", json={"model": "tiny-ae", "input": items})

    alone = (await ask([tensor(0.75), tensor(0.25)])).json()["data"]
    bad = [[tensor(0.75), tensor(3e38)], [tensor(0.75), {"tensor": {"data": [1]}}], [picture(b"no")]]
    answers = await asyncio.gather(*(ask(each) for each in [[tensor(0.75), tensor(0.25)], *bad] * 16))
    assert [answer.status_code for answer in answers] == [200, 400, 400, 400] * 16
    assert all(answer.json()["data"] == alone for answer in answers[::4])
