import base64
from typing import Any

import httpx
import pytest

from deployments.messages import Encode, ImageItem, Output, TensorItem
from deployments.messages.latents import Combine, Compress, Decompress, Group, Traverse
from service.openai.schemas.items import DecodedList, LatentList
from service.openai.schemas.latents import CombinedList, TraversedList
from tests.service.models import PNG, Models

PICTURE = {"image": base64.b64encode(PNG).decode()}
TENSOR = {"tensor": {"data": [0.25, 0.75]}}
ITEM = TensorItem([0.25, 0.75])


async def post(http: httpx.AsyncClient, route: str, **fields: Any) -> Any:
    answer = await http.post(f"/v1/latents/{route}", json={"model": "mirror", **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == "3"
    return answer.json()


async def test_one_axis(http: httpx.AsyncClient, models: Models) -> None:
    asked = {"axis": 2, "range": [-3, 3], "steps": 2, "unit": "deviation"}
    body = await post(http, "traverse", **{"from": PICTURE}, **asked)
    TraversedList.model_validate(body)
    assert [(entry["index"], entry["value"]) for entry in body["data"]] == [(0, -3.0), (1, 3.0)]
    assert body["data"][1]["output"]["tensor"]["data"] == [1.0]
    request = models.seen[0]
    assert isinstance(request, Traverse)
    assert (request.start, request.axis, request.low, request.high) == (ImageItem(PNG), 2, -3, 3)
    assert (request.steps, request.unit) == (2, "deviation")
    await post(http, "traverse", **{"from": [1, 2]}, axis=0, range=[1, 0])
    request = models.seen[1]
    assert isinstance(request, Traverse)
    assert (request.start, request.low, request.high, request.steps, request.unit) == (
        [1, 2],
        1,
        0,
        8,
        "value",
    )


async def test_a_sum_of_means(http: httpx.AsyncClient, models: Models) -> None:
    groups = [{"input": [PICTURE, [0.5, 1]]}, {"input": [TENSOR], "weight": -1.5}]
    body = await post(http, "combine", groups=groups)
    CombinedList.model_validate(body)
    assert body["data"][0]["latent"] == [1.0, -1.5]
    request = models.seen[0]
    assert isinstance(request, Combine)
    assert request.groups == (Group((ImageItem(PNG), [0.5, 1])), Group((ITEM,), -1.5))


async def test_compression_there_and_back(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "encode", input=[TENSOR, PICTURE], encoding_format="int8")
    LatentList.model_validate(body)
    assert body["compressed"] == {
        "data": base64.b64encode(b"few").decode(),
        "bytes": 3,
        "bits_per_pixel": 0.5,
        "psnr": 30.0,
        "jpeg": {"bytes": 200, "psnr": None, "fits": False},
        "webp": {"bytes": 3, "psnr": 20.0, "fits": True},
    }
    assert body["data"][0] == {"index": 0, "object": "latent", "latent": [0.25, 0.75], "psnr": None}
    request = models.seen[0]
    assert isinstance(request, Compress)
    assert request.items == (ITEM, ImageItem(PNG))
    back = await post(http, "decode", latents=body["compressed"]["data"])
    DecodedList.model_validate(back)
    request = models.seen[1]
    assert isinstance(request, Decompress)
    assert request.data == b"few"


async def test_floats_are_what_is_answered_otherwise(http: httpx.AsyncClient, models: Models) -> None:
    body = await post(http, "encode", input=[TENSOR], encoding_format="float")
    assert "compressed" not in body
    assert body["data"][0].keys() == {"index", "object", "latent", "spread"}
    assert isinstance(models.seen[0], Encode)


GOOD = {"from": [1], "axis": 0, "range": [0, 1]}


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("traverse", {**GOOD, "axis": -1}, "axis"),
        ("traverse", {**GOOD, "axis": 0.5}, "axis"),
        ("traverse", {**GOOD, "range": [0]}, "range"),
        ("traverse", {**GOOD, "range": [0, 1, 2]}, "range"),
        ("traverse", {**GOOD, "range": [0, "1"]}, "range[1]"),
        ("traverse", {**GOOD, "range": {"low": 0}}, "range"),
        ("traverse", {**GOOD, "steps": 1}, "steps"),
        ("traverse", {**GOOD, "steps": 257}, "steps"),
        ("traverse", {**GOOD, "unit": "sigma"}, "unit"),
        ("traverse", {**GOOD, "from": {"image": "?"}}, "from.image"),
        ("traverse", {**GOOD, "from": "AAAA"}, "from"),
        ("combine", {"groups": []}, "groups"),
        ("combine", {"groups": [{"input": [[1]]}] * 17}, "groups"),
        ("combine", {"groups": [{"input": [[1]] * 129}] * 2}, "groups"),
        ("combine", {"groups": [{"input": []}]}, "groups[0].input"),
        ("combine", {"groups": [{"input": [[1]] * 257}]}, "groups[0].input"),
        ("combine", {"groups": [{"input": [[1], []]}]}, "groups[0].input[1]"),
        ("combine", {"groups": [{"input": [[1]]}, {"input": [[1], {"image": "?"}]}]}, "groups[1].input[1].image"),
        ("combine", {"groups": [{"input": [[1]], "weight": "1"}]}, "groups[0].weight"),
        ("combine", {"groups": [{"input": [[1]], "sign": 1}]}, "groups[0].sign"),
        ("combine", {"groups": {"input": [[1]]}}, "groups"),
        ("encode", {"input": [TENSOR], "encoding_format": "base64"}, "encoding_format"),
        ("decode", {"latents": "no base64!"}, "latents"),
        ("decode", {"latents": {"data": "AAAA"}}, "latents"),
        ("decode", {"latents": ["AAAA"]}, "latents[0]"),
    ],
)  # fmt: skip
async def test_what_is_refused_by_its_field(
    http: httpx.AsyncClient, route: str, fields: Any, param: str
) -> None:
    answer = await http.post(f"/v1/latents/{route}", json={"model": "mirror", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        ("traverse", GOOD),
        ("combine", {"groups": [{"input": [[1]]}]}),
        ("encode", {"input": [TENSOR], "encoding_format": "int8"}),
        ("decode", {"latents": "AAAA"}),
    ],
)
async def test_a_model_of_another_kind(http: httpx.AsyncClient, route: str, fields: Any) -> None:
    answer = await http.post(f"/v1/latents/{route}", json={"model": "poet", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "task_not_supported", "model")


@pytest.mark.parametrize(
    ("route", "fields", "output"),
    [
        ("traverse", GOOD, Output(image=PNG)),
        ("traverse", GOOD, Output(image=PNG, value=float("nan"))),
        ("combine", {"groups": [{"input": [[1]]}]}, Output(image=PNG)),
        ("encode", {"input": [TENSOR], "encoding_format": "int8"}, Output()),
    ],
)
async def test_no_answer_lacks_what_it_is_for(
    http: httpx.AsyncClient, models: Models, route: str, fields: Any, output: Output
) -> None:
    models.answer = output
    answer = await http.post(f"/v1/latents/{route}", json={"model": "mirror", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
