import base64
import struct
from dataclasses import replace
from typing import Any

import httpx
import pytest

from deployments.messages import (
    Array,
    Decode,
    Encode,
    ImageItem,
    Interpolate,
    Output,
    Reconstruct,
    RowItem,
    Score,
    SeriesItem,
    TensorItem,
)
from service.openai.schemas.items import AnomalyList, DecodedList, LatentList, ReconstructionList
from tests.service.models import PNG, Models

PICTURE = {"image": base64.b64encode(PNG).decode()}
TENSOR = {"tensor": {"data": [0.25, 0.75]}}
RAW = {
    "tensor": {
        "shape": [2],
        "dtype": "float32",
        "data": base64.b64encode(struct.pack("<2f", 0.25, 0.75)).decode(),
    }
}
SHOWN = {"image": base64.b64encode(PNG).decode()}


async def post(http: httpx.AsyncClient, route: str, **fields: Any) -> Any:
    answer = await http.post(f"/v1/{route}", json={"model": "mirror", **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == "3"
    assert "server-timing" in answer.headers
    return answer.json()


# -- anomalies -------------------------------------------------------------------------------------------------------


async def test_scores_in_order(http: httpx.AsyncClient) -> None:
    body = await post(http, "anomalies", input=[TENSOR, {"tensor": {"data": [1, 1]}}])
    AnomalyList.model_validate(body)
    first = {
        "index": 0, "object": "anomaly", "score": 0.5, "normalized": 0.5, "p_value": 0.25, "threshold": 0.5,
        "is_anomaly": False,
    }  # fmt: skip
    assert body["data"][0] == first
    assert (body["data"][1]["score"], body["data"][1]["is_anomaly"]) == (1.0, True)
    del body["data"]
    assert body == {
        "object": "list", "model": "mirror", "version": "3", "score": "mean", "calibration": "mirror:3",
        "method": "quantile", "usage": {"items": 2}
    }  # fmt: skip


async def test_maps_and_masks_when_asked_for(http: httpx.AsyncClient) -> None:
    body = await post(http, "anomalies", input=[PICTURE], **{"return": ["map", "mask"]})
    AnomalyList.model_validate(body)
    assert body["data"][0]["map"] == body["data"][0]["mask"] == SHOWN


async def test_a_map_as_numbers_has_the_items_own_form(http: httpx.AsyncClient) -> None:
    body = await post(http, "anomalies", input=[TENSOR, RAW], map_format="tensor", **{"return": ["map"]})
    AnomalyList.model_validate(body)
    assert body["data"][0]["map"] == {"tensor": {"shape": [2], "dtype": "float32", "data": [0.25, 0.75]}}
    assert body["data"][1]["map"]["tensor"]["data"] == RAW["tensor"]["data"]


async def test_adjusted_p_values_when_a_rate_is_asked_for(http: httpx.AsyncClient) -> None:
    body = await post(http, "anomalies", input=[TENSOR], false_discovery_rate=0.1)
    AnomalyList.model_validate(body)
    assert body["data"][0]["adjusted_p_value"] == 0.5


async def test_every_field_reaches_the_scorer(http: httpx.AsyncClient, models: Models) -> None:
    await post(
        http, "anomalies", input=[TENSOR], score="ssim", calibration="mirror:3", threshold=-1.5, seed=3, timeout=5,
        false_discovery_rate=0.25, map_format="tensor", **{"return": ["mask", "map"]},
    )  # fmt: skip
    request = models.seen[0]
    assert isinstance(request, Score)
    assert request.timeout_seconds is not None
    assert request.timeout_seconds <= 5
    expected = Score(
        "mirror",
        (TensorItem([0.25, 0.75]),),
        score="ssim",
        calibration="mirror:3",
        threshold=-1.5,
        false_discovery_rate=0.25,
        map=True,
        map_numbers=True,
        mask=True,
        seed=3,
    )
    assert replace(request, request_id="", timeout_seconds=None) == expected


# -- reconstructions -------------------------------------------------------------------------------------------------


async def test_an_item_comes_back_in_its_own_form(http: httpx.AsyncClient) -> None:
    body = await post(http, "reconstructions", input=[PICTURE, TENSOR, RAW])
    ReconstructionList.model_validate(body)
    picture, nested, raw = (entry["output"] for entry in body["data"])
    assert picture == SHOWN
    assert nested == {"tensor": {"shape": [2], "dtype": "float32", "data": [0.125, 0.375]}}
    assert raw["tensor"]["shape"] == [2]
    assert struct.unpack("<2f", base64.b64decode(raw["tensor"]["data"])) == (0.125, 0.375)
    assert [entry["error"] for entry in body["data"]] == [0.25] * 3
    assert body["usage"] == {"items": 3}


async def test_error_map_and_latent_when_asked_for(http: httpx.AsyncClient, models: Models) -> None:
    plain = await post(http, "reconstructions", input=[TENSOR])
    assert plain["data"][0].keys() == {"index", "object", "output", "error"}
    body = await post(http, "reconstructions", input=[TENSOR], seed=4, **{"return": ["error_map", "latent"]})
    ReconstructionList.model_validate(body)
    assert body["data"][0]["error_map"] == SHOWN
    assert body["data"][0]["latent"] == [0.125, 0.375]
    request = models.seen[-1]
    assert isinstance(request, Reconstruct)
    assert (request.seed, request.error_map, request.latent) == (4, True, True)


# -- table rows ------------------------------------------------------------------------------------------------------

ROW = {"features": {"a": 1, "b": None, "c": 3}}


async def test_a_row_comes_back_by_feature(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "reconstructions", input=[ROW, {"features": {"a": 1}}], samples=3)
    ReconstructionList.model_validate(body)
    first, whole = body["data"]
    assert first["output"] == {"features": {"a": 0.5, "b": 0, "c": 1.5}}
    assert first["imputed"] == {"b": {"value": 0.5, "spread": 0.25}}
    assert "imputed" not in whole
    request = models.seen[0]
    assert isinstance(request, Reconstruct)
    assert (request.items[0], request.samples) == (RowItem(ROW["features"]), 3)


async def test_contributions_when_asked_for(http: httpx.AsyncClient) -> None:
    body = await post(http, "anomalies", input=[ROW], **{"return": ["contributions"]})
    AnomalyList.model_validate(body)
    assert body["data"][0]["contributions"] == {"a": 1}


# -- series ----------------------------------------------------------------------------------------------------------


async def test_a_series_has_alarms_and_steps_when_asked_for(http: httpx.AsyncClient, models: Models) -> None:
    stamps = ["2020-01-01", "2020-01-02", "2020-01-03"]
    item = {"series": [1, 2, 3], "timestamps": stamps, "session": "s"}
    body = await post(http, "anomalies", input=[item, {"series": [1]}], **{"return": ["steps"]})
    AnomalyList.model_validate(body)
    first, alone = body["data"]
    assert first["steps"] == {"start": 0, "scores": [1, 2, 3]}
    assert first["alarms"] == [{"start": 0, "end": 2, "peak": 1, "open": True, "began": "2020-01-01"}]
    assert (first["session"], "session" in alone) == ("s+", False)
    request = models.seen[0]
    assert isinstance(request, Score)
    assert request.items == (SeriesItem([1, 2, 3], stamps, "s"), SeriesItem([1]))


async def test_a_series_comes_back_in_its_own_form(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "reconstructions", input=[{"series": [1, 2]}])
    ReconstructionList.model_validate(body)
    assert body["data"][0]["output"] == {"series": [0.5, 1.0]}
    models.answer = Output(array=Array((2, 1), struct.pack("<2f", 1, 2)))
    body = await post(http, "reconstructions", input=[{"series": [[1], [2]]}])
    assert body["data"][0]["output"] == {"series": [[1.0], [2.0]]}


@pytest.mark.parametrize(
    "item",
    [
        {**TENSOR, "features": {}},
        {**TENSOR, "timestamps": [1]},
        {"features": {"a": 1}, "session": ""},
        {"session": ""},
        {"features": [1]},
        {"series": {"values": [1]}},
        {"series": [1], "session": 3},
    ],
    ids=str,
)
async def test_an_item_is_one_thing(http: httpx.AsyncClient, item: Any) -> None:
    answer = await http.post("/v1/anomalies", json={"model": "mirror", "input": [TENSOR, item]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("input[1]")


# -- latents ---------------------------------------------------------------------------------------------------------


async def test_encode(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "latents/encode", input=[TENSOR, RAW])
    LatentList.model_validate(body)
    assert body["data"][0] == {"index": 0, "object": "latent", "latent": [0.25, 0.75], "spread": [1.0]}
    assert body["data"][1]["latent"] == [0.25, 0.75]
    assert isinstance(models.seen[0], Encode)


async def test_decode(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "latents/decode", latents=[[0, 1.5], [2, 3]])
    DecodedList.model_validate(body)
    assert body["data"][0] == {
        "index": 0, "object": "output", "output": {"tensor": {"shape": [2], "dtype": "float32", "data": [0.0, 1.5]}}
    }  # fmt: skip
    request = models.seen[0]
    assert isinstance(request, Decode)
    assert request.latents == ([0, 1.5], [2, 3])


async def test_interpolate_between_items_and_latents(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "latents/interpolate", **{"from": PICTURE, "to": [0.5, 1]}, steps=3, mode="slerp")
    DecodedList.model_validate(body)
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2]
    request = models.seen[0]
    assert isinstance(request, Interpolate)
    assert (request.start, request.end, request.steps, request.mode) == (ImageItem(PNG), [0.5, 1], 3, "slerp")
    await post(http, "latents/interpolate", **{"from": [0.5], "to": TENSOR})
    request = models.seen[1]
    assert isinstance(request, Interpolate)
    assert (request.start, request.end, request.steps, request.mode) == (
        [0.5],
        TensorItem([0.25, 0.75]),
        8,
        "linear",
    )


# -- items -----------------------------------------------------------------------------------------------------------


async def test_a_picture_as_a_data_url(http: httpx.AsyncClient, models: Models) -> None:
    for kind in ("png", "jpeg", "webp"):
        await post(http, "anomalies", input=[{"image": f"data:image/{kind};base64,{PICTURE['image']}"}])
        request = models.seen[-1]
        assert isinstance(request, Score)
        assert request.items == (ImageItem(PNG),)


async def test_numbers_go_through_as_they_are(http: httpx.AsyncClient, models: Models) -> None:
    await post(http, "anomalies", input=[{"tensor": {"shape": [2, 1], "data": [1, 2]}}, RAW])
    request = models.seen[0]
    assert isinstance(request, Score)
    assert request.items == (TensorItem([1, 2], (2, 1)), TensorItem(struct.pack("<2f", 0.25, 0.75), (2,)))


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({}, "input[1]", "invalid_value"),
        ({**PICTURE, **TENSOR}, "input[1]", "invalid_value"),
        ("text", "input[1]", "invalid_type"),
        ({"image": 1}, "input[1].image", "invalid_type"),
        ({"image": ""}, "input[1].image", "invalid_value"),
        ({"image": "no base64!"}, "input[1].image", "invalid_value"),
        ({"image": "AAA"}, "input[1].image", "invalid_value"),
        ({"image": "ÄÖÜß"}, "input[1].image", "invalid_value"),
        ({"image": "https://example.com/a.png"}, "input[1].image", "unsupported_url"),
        ({"image": "http://169.254.169.254/latest"}, "input[1].image", "unsupported_url"),
        ({"image": "file:///etc/passwd"}, "input[1].image", "unsupported_url"),
        ({"image": "gopher://x"}, "input[1].image", "unsupported_url"),
        ({"image": "data:text/html;base64,AAAA"}, "input[1].image", "invalid_value"),
        ({"image": "data:image/svg+xml;base64,AAAA"}, "input[1].image", "invalid_value"),
        ({"image": "data:image/png,AAAA"}, "input[1].image", "invalid_value"),
        ({"image": "data:image/png;base64,"}, "input[1].image", "invalid_value"),
        ({"tensor": [1, 2]}, "input[1].tensor", "invalid_type"),
        ({"tensor": {}}, "input[1].tensor.data", "missing_required_parameter"),
        ({"tensor": {"data": 1}}, "input[1].tensor.data", "invalid_type"),
        ({"tensor": {"data": None}}, "input[1].tensor.data", "invalid_type"),
        ({"tensor": {"data": {"a": 1}}}, "input[1].tensor.data", "invalid_type"),
        ({"tensor": {"data": [1], "dtype": "float64"}}, "input[1].tensor.dtype", "invalid_value"),
        ({"tensor": {"data": [1], "shape": [-1]}}, "input[1].tensor.shape[0]", "invalid_value"),
        ({"tensor": {"data": [1], "shape": [1.5]}}, "input[1].tensor.shape[0]", "invalid_type"),
        ({"tensor": {"data": [1], "shape": [2**60]}}, "input[1].tensor.shape[0]", "invalid_value"),
        ({"tensor": {"data": [1], "shape": [1] * 17}}, "input[1].tensor.shape", "invalid_value"),
        ({"tensor": {"data": "AAAAAA=="}}, "input[1].tensor.shape", "missing_required_parameter"),
        ({"tensor": {"data": "AAAAAA==", "shape": [2]}}, "input[1].tensor.shape", "invalid_value"),
        ({"tensor": {"data": "AAAAAA==", "shape": [2**30] * 9}}, "input[1].tensor.shape", "invalid_value"),
        ({"tensor": {"data": "!", "shape": [1]}}, "input[1].tensor.data", "invalid_value"),
        ({"tensor": {"data": [1], "strides": [1]}}, "input[1].tensor.strides", "unknown_parameter"),
    ],
)  # fmt: skip
async def test_what_is_no_item_is_named_by_its_place(
    http: httpx.AsyncClient, item: Any, param: str, code: str
) -> None:
    answer = await http.post("/v1/anomalies", json={"model": "mirror", "input": [TENSOR, item]})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    await post(http, "anomalies", input=[TENSOR])


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("anomalies", {"input": []}, "input"),
        ("anomalies", {"input": [TENSOR] * 1025}, "input"),
        ("anomalies", {"input": TENSOR}, "input"),
        ("anomalies", {}, "input"),
        ("anomalies", {"input": [TENSOR], "return": ["latent"]}, "return[0]"),
        ("anomalies", {"input": [TENSOR], "return": "map"}, "return"),
        ("anomalies", {"input": [TENSOR], "return_": ["map"]}, "return_"),
        ("anomalies", {"input": [TENSOR], "threshold": "high"}, "threshold"),
        ("anomalies", {"input": [TENSOR], "seed": -1}, "seed"),
        ("anomalies", {"input": [TENSOR], "seed": 2**63}, "seed"),
        ("anomalies", {"input": [TENSOR], "seed": 2**70}, "seed"),
        ("reconstructions", {"input": [TENSOR], "return": ["map"]}, "return[0]"),
        ("latents/encode", {"input": [TENSOR], "seed": 1}, "seed"),
        ("latents/decode", {"latents": []}, "latents"),
        ("latents/decode", {"latents": [[]]}, "latents[0]"),
        ("latents/decode", {"latents": [[1], 2]}, "latents[1]"),
        ("latents/decode", {"latents": ["AAAA"]}, "latents[0]"),
        ("latents/interpolate", {"from": [1]}, "to"),
        ("latents/interpolate", {"from": [], "to": [1]}, "from"),
        ("latents/interpolate", {"from": {"image": "?"}, "to": [1]}, "from.image"),
        ("latents/interpolate", {"from": {"image": 1}, "to": [1]}, "from.image"),
        ("latents/interpolate", {"from": [1], "to": "x"}, "to"),
        ("latents/interpolate", {"from": [1], "to": [1], "steps": 1}, "steps"),
        ("latents/interpolate", {"from": [1], "to": [1], "steps": 257}, "steps"),
        ("latents/interpolate", {"from": [1], "to": [1], "mode": "cubic"}, "mode"),
    ],
)  # fmt: skip
async def test_what_is_refused_by_its_field(
    http: httpx.AsyncClient, route: str, fields: Any, param: str
) -> None:
    answer = await http.post(f"/v1/{route}", json={"model": "mirror", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "route", ["anomalies", "reconstructions", "latents/encode", "latents/decode", "latents/interpolate"]
)
async def test_a_model_of_another_kind(http: httpx.AsyncClient, route: str) -> None:
    fields = (
        {"from": [1], "to": [1]}
        if "inter" in route
        else {"latents": [[1]]}
        if "decode" in route
        else {"input": [TENSOR]}
    )
    answer = await http.post(f"/v1/{route}", json={"model": "poet", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "task_not_supported", "model")
    assert "complete" in error["message"]


# -- numbers that must not leave -------------------------------------------------------------------------------------


NAN = float("nan")
SCORED = Output(score=1.0, normalized=0.5, p_value=0.5, threshold=1.0, is_anomaly=False)


@pytest.mark.parametrize(
    ("route", "output"),
    [
        ("anomalies", replace(SCORED, score=NAN)),
        ("anomalies", replace(SCORED, normalized=float("inf"))),
        ("anomalies", replace(SCORED, p_value=None)),
        ("reconstructions", Output(error=0.1)),
        ("reconstructions", Output(image=PNG, error=NAN)),
        ("reconstructions", Output(array=Array((2,), struct.pack("<2f", 1, NAN)))),
        ("reconstructions", Output(array=Array((2,), struct.pack("<2f", float("inf"), -float("inf"))))),
        ("latents/encode", Output()),
        ("latents/encode", Output(latent=Array((1,), struct.pack("<f", NAN)))),
    ],
)
async def test_no_answer_carries_what_is_not_finite(
    http: httpx.AsyncClient, models: Models, route: str, output: Output
) -> None:
    models.answer = output
    answer = await http.post(f"/v1/{route}", json={"model": "mirror", "input": [TENSOR]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
