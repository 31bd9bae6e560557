import base64
import math
import struct
from typing import Any

import httpx
import pytest

from deployments.errors import BadRequest, ModelFault
from deployments.messages import Array, Classify, Embed, Output, RowItem, SeriesItem, TensorItem
from service.openai.schemas.embeddings import ClassificationList, EmbeddingList
from tests.service.models import Models

ANSWERS: dict[str, Any] = {"embeddings": EmbeddingList, "classifications": ClassificationList}
MODELS = {"embeddings": "reader", "classifications": "critic"}


async def post(http: httpx.AsyncClient, route: str, given: Any, **fields: Any) -> Any:
    answer = await http.post(f"/v1/{route}", json={"model": MODELS[route], "input": given, **fields})
    assert answer.status_code == 200, answer.text
    ANSWERS[route].model_validate_json(answer.content)
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["server-timing"].startswith("queue;dur=1.000")
    return answer.json()


async def refused(http: httpx.AsyncClient, route: str, param: str, **fields: Any) -> Any:
    answer = await http.post(f"/v1/{route}", json={"model": MODELS[route], "input": "a", **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    return error


async def test_vectors(http: httpx.AsyncClient) -> None:
    assert await post(http, "embeddings", ["abc", "d"], dimensions=2) == {
        "object": "list",
        "model": "reader",
        "version": "3",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [3.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.5]},
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


async def test_vectors_as_base64(http: httpx.AsyncClient) -> None:
    body = await post(http, "embeddings", "abc", encoding_format="base64")
    raw = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack("<3f", raw) == (3.0, 0.5, 0.5)


async def test_large_answers_are_written_beside_the_event_loop(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = await post(http, "embeddings", ["abc"] * 3)
    monkeypatch.setattr("service.answers.LARGE", 1)
    assert await post(http, "embeddings", ["abc"] * 3) == small


async def test_a_vector_that_is_not_finite_is_a_fault(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = Array((1,), struct.pack("<f", math.nan))
    monkeypatch.setattr("tests.service.models.text_outputs", lambda _: [Output(array=vector)])
    for form in ("float", "base64"):
        body = {"model": "reader", "input": "a", "encoding_format": form}
        assert (await http.post("/v1/embeddings", json=body)).status_code == 500


async def test_classes(http: httpx.AsyncClient) -> None:
    body = await post(http, "classifications", ["a" * 16, "a" * 48])
    assert body["data"] == [
        {
            "object": "classification",
            "index": 0,
            "label": "short",
            "classes": [{"label": "short", "probability": 0.75}, {"label": "long", "probability": 0.25}],
        },
        {
            "object": "classification",
            "index": 1,
            "label": "long",
            "classes": [{"label": "long", "probability": 0.75}, {"label": "short", "probability": 0.25}],
        },
    ]
    assert body["usage"] == {"prompt_tokens": 64, "total_tokens": 64}


@pytest.mark.parametrize("route", MODELS)
@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("ab", ("ab",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (["a"] * 2048, ("a",) * 2048),
    ],
)
async def test_every_form_of_input(
    http: httpx.AsyncClient, models: Models, route: str, given: Any, inputs: Any
) -> None:
    body = await post(http, route, given, priority=2)
    (request,) = models.seen
    assert isinstance(request, Embed | Classify)
    assert (request.inputs, request.priority) == (inputs, 2)
    assert [entry["index"] for entry in body["data"]] == list(range(len(inputs)))


async def test_items_are_embedded_as_well(http: httpx.AsyncClient, models: Models) -> None:
    sent = [{"features": {"a": None}}, {"series": [1, 2]}, {"tensor": {"data": [0.5]}}]
    body = await post(http, "embeddings", sent)
    (request,) = models.seen
    assert isinstance(request, Embed)
    assert request.inputs == (RowItem({"a": None}), SeriesItem([1, 2]), TensorItem([0.5]))
    assert (len(body["data"]), body["usage"]["prompt_tokens"]) == (3, 0)
    await refused(http, "embeddings", "input[1]", input=[*sent[:1], {}])
    await refused(http, "embeddings", "input[1]", input=[*sent[:1], "text"])


@pytest.mark.parametrize("route", MODELS)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [1, -1]}, "input[1]"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a" * 1_048_577}, "input"),
        ({"input": ["a" * 600_000] * 2}, "input"),
        ({"input": [1] * 262_145}, "input"),
        ({"input": [[1] * 140_000] * 2}, "input"),
        ({"priority": 1001}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"stream": True}, "stream"),
        ({"model": "poet"}, "model"),
    ],
)
async def test_what_is_wrong(http: httpx.AsyncClient, route: str, fields: Any, param: str) -> None:
    await refused(http, route, param, **fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 10**9}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_what_is_wrong_with_a_vector(http: httpx.AsyncClient, fields: Any, param: str) -> None:
    await refused(http, "embeddings", param, **fields)


@pytest.mark.parametrize("route", MODELS)
async def test_the_place_of_a_text_that_the_model_refuses(
    http: httpx.AsyncClient, models: Models, route: str
) -> None:
    for given, param in (("a", "input"), ([1, 2], "input"), (["a"], "input[0]"), ([[1]], "input[0]")):
        models.failure = BadRequest("Too long.", code="context_length_exceeded", param="input[0]")
        assert (await refused(http, route, param, input=given))["code"] == "context_length_exceeded"


@pytest.mark.parametrize("route", MODELS)
async def test_a_model_that_gives_nothing_is_a_fault(
    http: httpx.AsyncClient, models: Models, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr("tests.service.models.text_outputs", lambda _: [Output()])
    answer = await http.post(f"/v1/{route}", json={"model": MODELS[route], "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, ModelFault.code)


async def test_the_key_travels(http: httpx.AsyncClient, models: Models) -> None:
    for route, model in MODELS.items():
        await http.post(f"/v1/{route}", json={"model": model, "input": "a"}, headers={"api-key": "x"})
        request = models.seen[-1]
        assert isinstance(request, Embed | Classify)
        assert len(request.principal) == 16
