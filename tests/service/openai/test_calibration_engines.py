"""Calibrating and scoring over HTTP, by real engines over kilobyte packages."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from service.api import create_app
from service.openai.schemas.calibrations import CalibrationList, CalibrationOut
from service.openai.schemas.items import AnomalyList
from service.openai.schemas.models import ModelList
from service.settings import Settings
from tests import packages

ROUTE = "/v1/anomalies/calibrations"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    packages.autoencoder(tmp_path)
    packages.autoencoder(tmp_path, name="tiny-vae", variational=True, samples=3)
    return tmp_path


@contextmanager
def studio_of(store: Path) -> Iterator[Studio]:
    studio = open_studio(HostConfig(store=str(store), threads=1), Metrics(CollectorRegistry()))
    try:
        yield studio
    finally:
        studio.close()


@asynccontextmanager
async def client_of(studio: Studio) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(studio, Settings(), studio._metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier") as client:
        yield client


@pytest.fixture
async def http(store: Path) -> AsyncIterator[httpx.AsyncClient]:
    with studio_of(store) as studio:
        async with client_of(studio) as client:
            yield client


def item(error: float) -> dict[str, Any]:
    """One whose `l1` is this much."""
    return {"tensor": {"data": [0.5 + error] * 64}}


def ramp(count: int, top: float = 0.4) -> list[dict[str, Any]]:
    return [item(error) for error in np.linspace(0, top, count).tolist()]


async def post(http: httpx.AsyncClient, route: str, status: int = 200, **fields: Any) -> Any:
    answer = await http.post(f"/v1/{route}", json={"model": "tiny-ae", **fields})
    assert answer.status_code == status, answer.text
    return answer.json() if status == 200 else answer.json()["error"]


async def calibrate(http: httpx.AsyncClient, **fields: Any) -> Any:
    body = await post(http, "anomalies/calibrations", **fields)
    CalibrationOut.model_validate(body)
    return body


async def test_a_threshold_of_ones_own(http: httpx.AsyncClient) -> None:
    made = await calibrate(http, input=ramp(19))
    assert (made["items"], made["method"], made["level"]) == (19, "false_positive_rate", 0.05)
    assert made["threshold"] == pytest.approx(0.4)
    body = await post(http, "anomalies", input=[item(0.3), item(0.45)], calibration=made["id"])
    AnomalyList.model_validate(body)
    low, high = body["data"]
    assert (body["calibration"], body["score"], body["method"]) == (made["id"], "l1", "false_positive_rate")
    assert (low["is_anomaly"], high["is_anomaly"]) == (False, True)
    assert low["p_value"] == pytest.approx(6 / 20)
    assert high["p_value"] == pytest.approx(1 / 20)
    before = await post(http, "anomalies", input=[item(0.3)])
    assert (before["calibration"], before["data"][0]["is_anomaly"]) == ("tiny-ae:1", True)


async def test_f1_with_labels(http: httpx.AsyncClient) -> None:
    labels = [place >= 8 for place in range(10)]
    made = await calibrate(http, input=ramp(10, 0.45), labels=labels, method="f1", score="peak")
    assert (made["f1"], made["items"], made["anomalies"], made["score"]) == (1.0, 8, 2, "peak")
    assert made["threshold"] == pytest.approx(0.375)


async def test_masks_are_cut_where_the_peak_is_calibrated(http: httpx.AsyncClient) -> None:
    """By its default calibration, and by that of the request, if it scores by it."""

    async def masked(**fields: Any) -> bool:
        asked: dict[str, Any] = {"input": [item(0.3)], "return": ["mask"], **fields}
        body = await post(http, "anomalies", **asked)
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["data"][0]["mask"]["image"]))))
        assert mask.shape == (8, 8)
        assert mask.min() == mask.max()
        return bool(mask.all())

    made = await calibrate(http, input=ramp(19), score="peak")
    assert await masked()  # the package's is below 0.1
    assert await masked(score="peak")
    assert not await masked(score="peak", calibration=made["id"])
    assert await masked(score="peak", threshold=0.2)
    answer = await http.post(f"{ROUTE}/{made['id']}/default")
    assert answer.status_code == 200
    assert not await masked()


async def test_the_default_is_used_and_survives_a_restart(store: Path) -> None:
    with studio_of(store) as studio:
        async with client_of(studio) as http:
            made = await calibrate(http, input=ramp(19), default=True)
            assert (await post(http, "anomalies", input=[item(0.3)]))["calibration"] == made["id"]
    with studio_of(store) as studio:
        async with client_of(studio) as http:
            body = await post(http, "anomalies", input=[item(0.3)])
            assert (body["calibration"], body["data"][0]["is_anomaly"]) == (made["id"], False)
            cards = ModelList.model_validate_json((await http.get("/v1/models")).content)
            (card,) = (each for each in cards.data if each.id == "tiny-ae")
            assert card.limits["scores"]["l1"] == made["threshold"]


async def test_their_whole_life(http: httpx.AsyncClient) -> None:
    made = await calibrate(http, input=ramp(3), method="quantile", quantile=0.5, default=True)
    listed = CalibrationList.model_validate_json((await http.get(ROUTE, params={"model": "tiny-ae"})).content)
    assert [each.id for each in listed.data] == ["tiny-ae:1", "tiny-ae:1", made["id"]]
    where = f"{ROUTE}/{made['id']}"
    assert (await http.get(where)).json() == {name: made[name] for name in made if name != "usage"}
    assert (await http.delete(where)).json()["error"]["code"] == "calibration_in_use"
    assert (await http.post(f"{ROUTE}/tiny-ae:1/default")).json()["id"] == "tiny-ae:1"
    assert (await http.delete(where)).json() == {"id": made["id"], "object": "calibration", "deleted": True}
    assert (await http.get(where)).status_code == (await http.delete(where)).status_code == 404
    error = await post(http, "anomalies", 400, input=[item(0)], calibration=made["id"])
    assert (error["code"], error["param"]) == ("unknown_calibration", "calibration")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": []}, "invalid_value", "input"),
        ({"input": ramp(18)}, "too_few_items", "input"),
        ({"input": [item(0), {"tensor": {"data": [0.5]}}]}, "invalid_value", "input[1].tensor.data"),
        ({"input": [item(3e38)] * 19}, "not_finite", "input[0]"),
        ({"input": ramp(2), "labels": [True]}, "invalid_value", "labels"),
        ({"input": ramp(2), "labels": [True, True]}, "too_few_items", "labels"),
        ({"input": [item(0), item(0)], "labels": [True, False]}, "contradictory_labels", "labels[1]"),
        ({"input": ramp(2), "method": "f1"}, "missing_required_parameter", "labels"),
        ({"input": ramp(2), "score": "vibes"}, "unknown_score", "score"),
    ],
)
async def test_what_cannot_be_calibrated(
    http: httpx.AsyncClient, fields: dict[str, Any], code: str, param: str
) -> None:
    error = await post(http, "anomalies/calibrations", 400, **fields)
    assert (error["code"], error["param"]) == (code, param)
    listed = (await http.get(ROUTE, params={"model": "tiny-ae"})).json()["data"]
    assert {each["id"] for each in listed} == {"tiny-ae:1"}


async def test_nobody_is_scored_by_two_calibrations(http: httpx.AsyncClient) -> None:
    """Requests and changes of the default at the same time: each answer is of one calibration alone."""
    first, second = [await calibrate(http, input=ramp(19, top)) for top in (0.2, 0.4)]
    expected = {each["id"]: each["threshold"] for each in (first, second)}

    async def change() -> None:
        for made in (first, second) * 5:
            await http.post(f"{ROUTE}/{made['id']}/default")

    async def ask() -> None:
        body = await post(http, "anomalies", input=ramp(20))
        threshold = expected[body["calibration"]]
        assert {each["threshold"] for each in body["data"]} == {threshold}
        assert all(each["is_anomaly"] == (each["score"] > threshold) for each in body["data"])

    await http.post(f"{ROUTE}/{first['id']}/default")
    await asyncio.gather(change(), *(ask() for _ in range(20)))


async def test_a_large_calibration_goes_in_pieces(http: httpx.AsyncClient) -> None:
    made = await calibrate(http, input=ramp(300), false_positive_rate=0.01)
    assert made["items"] == 300
    assert made["threshold"] == pytest.approx(0.4 * 297 / 299)


async def test_a_sampled_score_is_the_mean_of_its_samples(http: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"model": "tiny-vae", "input": [item(0.1), item(0.1)]}
    whole = await post(http, "anomalies", **fields)
    assert whole["usage"] == {"items": 2}
    again = await post(http, "anomalies", **fields)
    assert again["data"] == whole["data"]
    first, second = (each["score"] for each in whole["data"])
    assert first != second  # each item has draws of its own
    other = await post(http, "anomalies", **fields, seed=1)
    assert other["data"][0]["score"] != first
    made = await calibrate(http, model="tiny-vae", input=[item(0.1)] * 3, method="quantile")
    assert made["items"] == 3


async def test_a_map_of_numbers(http: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"input": [item(0.25)], "map_format": "tensor", "return": ["map"]}
    body = await post(http, "anomalies", **fields)
    AnomalyList.model_validate(body)
    assert body["data"][0]["map"]["tensor"]["shape"] == [8, 8]
    assert body["data"][0]["map"]["tensor"]["data"][0][0] == 0.25


async def test_false_discoveries(http: httpx.AsyncClient) -> None:
    body = await post(http, "anomalies", input=[item(0), item(0.3)], false_discovery_rate=0.05)
    AnomalyList.model_validate(body)
    assert body["method"] == "false_discovery_rate"
    assert [each["adjusted_p_value"] for each in body["data"]] == pytest.approx([1.0, 2 / 102])
    assert [each["is_anomaly"] for each in body["data"]] == [False, True]


async def test_a_drift_is_on_the_card_and_among_the_metrics(http: httpx.AsyncClient) -> None:
    made = await calibrate(http, input=ramp(60, 0.1), method="quantile", default=True)
    for _ in range(2):
        await post(http, "anomalies", input=[item(0.4)] * 100)
    drift: dict[str, Any] = {}
    async with asyncio.timeout(10):
        while not drift:
            await asyncio.sleep(0.2)  # the figures are made beside, and the cards made new once a second
            drift = (await http.get("/v1/models/tiny-ae")).json()["drift"]
    assert drift["l1"]["warning"]
    assert drift["l1"]["ks"] == 1.0
    assert drift["latent"]["items"] >= 100
    text = (await http.get("/metrics")).text
    assert 'atelier_drift_ks{replica="gateway",model="tiny-ae",of="l1"} 1.0' in text
    body = await post(http, "anomalies", input=[item(0.4)])
    assert (body["calibration"], body["data"][0]["threshold"]) == (made["id"], made["threshold"])
