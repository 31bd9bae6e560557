import base64
from typing import Any

import httpx
import pytest

from deployments.messages import Draw
from service.openai.schemas.images import ImageList
from tests.service.models import PNG, Models


async def draw(http: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await http.post("/v1/images/generations", json={"model": "painter", "prompt": "Coat", **fields})
    assert answer.status_code == 200, answer.text
    ImageList.model_validate_json(answer.content)
    return answer.json()


def sent(models: Models) -> Draw:
    request = models.seen[-1]
    assert isinstance(request, Draw)
    return request


async def test_pictures(http: httpx.AsyncClient) -> None:
    body = await draw(http, n=3, seed=5)
    assert [base64.b64decode(entry["b64_json"]) for entry in body["data"]] == [
        PNG + bytes([i]) for i in range(3)
    ]
    assert [(entry["seed"], entry["steps"]) for entry in body["data"]] == [(5, 1)] * 3
    assert (body["output_format"], body["size"]) == ("png", "auto")
    assert body["created"] > 1_700_000_000


async def test_defaults(http: httpx.AsyncClient, models: Models) -> None:
    body = await draw(http)
    request = sent(models)
    assert (request.n, request.size, request.format, request.quality, request.prompt) == (
        1,
        None,
        "png",
        90,
        "Coat",
    )
    assert body["data"][0]["seed"] == request.seed


async def test_every_field_reaches_the_model(http: httpx.AsyncClient, models: Models) -> None:
    await draw(http, n=10, seed=2**63 - 1, size="28x32", output_format="webp", output_compression=40)
    request = sent(models)
    assert (request.n, request.seed, request.size) == (10, 2**63 - 1, (28, 32))
    assert (request.format, request.quality) == ("webp", 40)


async def test_a_model_without_classes_takes_no_prompt(http: httpx.AsyncClient, models: Models) -> None:
    for prompt in (None, ""):
        await draw(http, prompt=prompt)
        assert sent(models).prompt is None


@pytest.mark.parametrize(
    "fields",
    [
        {
            "response_format": "b64_json",
            "quality": "auto",
            "background": "opaque",
            "stream": False,
            "partial_images": 0,
        },
        {
            "quality": "standard",
            "background": "auto",
            "style": None,
            "size": "auto",
            "output_compression": 100,
        },
    ],
)
async def test_what_changes_nothing_is_accepted(http: httpx.AsyncClient, fields: Any) -> None:
    await draw(http, **fields)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 11}, "n", "invalid_value"),
        ({"size": "0x0"}, "size", "invalid_value"),
        ({"size": "512"}, "size", "invalid_value"),
        ({"size": "1024X1024"}, "size", "invalid_value"),
        ({"size": "999999x1"}, "size", "invalid_value"),
        ({"size": 28}, "size", "invalid_type"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"output_format": "jpeg", "output_compression": 101}, "output_compression", "invalid_value"),
        ({"output_compression": 50}, "output_compression", "invalid_value"),
        ({"response_format": "url"}, "response_format", "invalid_value"),
        ({"stream": True}, "stream", "unknown_parameter"),
        ({"partial_images": 2}, "partial_images", "unknown_parameter"),
        ({"quality": "hd"}, "quality", "unknown_parameter"),
        ({"style": "vivid"}, "style", "unknown_parameter"),
        ({"steps": 20}, "steps", "unknown_parameter"),
        ({"guidance_scale": 3}, "guidance_scale", "unknown_parameter"),
        ({"prompt": 3}, "prompt", "invalid_type"),
        ({"prompt": "x" * 32_001}, "prompt", "invalid_value"),
        ({"model": "poet"}, "model", "task_not_supported"),
    ],
)
async def test_what_is_refused(http: httpx.AsyncClient, fields: Any, param: str, code: str) -> None:
    answer = await http.post("/v1/images/generations", json={"model": "painter", "prompt": "Coat", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


async def test_a_link_is_refused_in_plain_words(http: httpx.AsyncClient) -> None:
    fields = {"model": "painter", "prompt": "Coat", "response_format": "url"}
    answer = await http.post("/v1/images/generations", json=fields)
    assert "'b64_json'" in answer.json()["error"]["message"]
