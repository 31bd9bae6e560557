from dataclasses import replace
from typing import Any

import httpx
import pytest

from deployments.errors import BadRequest, CalibrationNotFound
from deployments.messages import Calibrate, Calibrations, TensorItem
from service.openai.schemas.calibrations import CalibrationDeleted, CalibrationList, CalibrationOut
from tests.service.models import Models

ITEM = {"tensor": {"data": [0.25, 0.75]}}
ROUTE = "/v1/anomalies/calibrations"


async def test_a_calibration_is_made_and_shown(http: httpx.AsyncClient, models: Models) -> None:
    fields = {
        "model": "mirror",
        "input": [ITEM, ITEM],
        "labels": [False, True],
        "method": "f1",
        "score": "l2",
    }
    answer = await http.post(ROUTE, json={**fields, "default": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == "3"
    CalibrationOut.model_validate_json(answer.content)
    body = answer.json()
    assert (body["id"], body["threshold"], body["items"], body["anomalies"]) == ("mirror:3:ab", 0.25, 1, 1)
    assert (body["default"], body["usage"]) == (True, {"items": 2})
    (request,) = models.seen
    assert isinstance(request, Calibrate)
    items = (TensorItem([0.25, 0.75]),) * 2
    expected = Calibrate("mirror", items, labels=(False, True), score="l2", method="f1", default=True)
    assert replace(request, request_id="", timeout_seconds=None) == expected


@pytest.mark.parametrize(("method", "level"), [("quantile", 0.5), ("false_positive_rate", 0.25)])
async def test_a_methods_own_level(
    http: httpx.AsyncClient, models: Models, method: str, level: float
) -> None:
    fields = {"model": "mirror", "input": [ITEM], "method": method, method: level}
    assert (await http.post(ROUTE, json=fields)).json()["level"] == level
    (request,) = models.seen
    assert isinstance(request, Calibrate)
    assert (request.method, request.level) == (method, level)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"labels": [0]}, "labels[0]"),
        ({"labels": ["normal"]}, "labels[0]"),
        ({"method": "vibes"}, "method"),
        ({"method": "quantile", "false_positive_rate": 0.1}, "false_positive_rate"),
        ({"quantile": 0.9}, "quantile"),
        ({"method": "f1", "quantile": 0.9}, "quantile"),
        ({"method": "quantile", "quantile": 1}, "quantile"),
        ({"false_positive_rate": 0}, "false_positive_rate"),
        ({"input": [ITEM] * 2000 + [{}]}, "input[2000]"),
        ({"model": "poet"}, "model"),
    ],
    ids=str,
)
async def test_what_is_no_calibration(http: httpx.AsyncClient, fields: dict[str, Any], param: str) -> None:
    answer = await http.post(ROUTE, json={"model": "mirror", "input": [ITEM], **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_they_are_listed_found_chosen_and_deleted(http: httpx.AsyncClient, models: Models) -> None:
    listed = CalibrationList.model_validate_json((await http.get(ROUTE, params={"model": "mirror"})).content)
    assert [each.id for each in listed.data] == ["mirror:3", "mirror:3:ab"]
    one, chosen, gone = (
        await http.get(f"{ROUTE}/mirror:3:cd"),
        await http.post(f"{ROUTE}/mirror:3:cd/default"),
        await http.delete(f"{ROUTE}/mirror:3:cd"),
    )
    assert [each.status_code for each in (one, chosen, gone)] == [200] * 3
    CalibrationOut.model_validate_json(one.content)
    CalibrationOut.model_validate_json(chosen.content)
    CalibrationDeleted.model_validate_json(gone.content)
    acts = [(each.model, each.act, each.id) for each in models.seen if isinstance(each, Calibrations)]
    named = [("mirror", act, "mirror:3:cd") for act in ("find", "choose", "delete")]
    assert acts == [("mirror", "list", ""), *named]


async def test_whose_calibrations_must_be_said(http: httpx.AsyncClient) -> None:
    error = (await http.get(ROUTE)).json()["error"]
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (CalibrationNotFound("no such", param="id"), 404),
        (BadRequest("a default", code="calibration_in_use"), 400),
    ],
)
async def test_refusals(http: httpx.AsyncClient, models: Models, failure: BadRequest, status: int) -> None:
    models.failure = failure
    answer = await http.delete(f"{ROUTE}/mirror:3:cd")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, failure.code)


async def test_an_unknown_models(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{ROUTE}/nobody:1:ab")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_methods_an_address_does_not_take(http: httpx.AsyncClient) -> None:
    for path, allowed in ((ROUTE, "GET, POST"), (f"{ROUTE}/mirror:3:cd", "DELETE, GET")):
        answer = await http.put(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["error"]["code"] == "method_not_allowed"
