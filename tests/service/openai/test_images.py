import base64
from typing import Any

import httpx
import orjson
import pytest

from deployments.errors import BadRequest
from deployments.messages import Draw
from service.openai.schemas.images import ImageEvent, ImageList
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
    assert [(entry["seed"], entry["steps"], entry["version"]) for entry in body["data"]] == [
        (seed, 1, "3") for seed in (5, 6, 7)
    ]
    assert (body["output_format"], body["size"], body["background"]) == ("png", "auto", "auto")
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
    body = await draw(http, n=10, seed=2**63 - 1, size="28x32", output_format="webp", output_compression=40)
    assert (body["output_format"], body["size"]) == ("webp", "28x32")
    request = sent(models)
    assert (request.n, request.seed, request.size) == (10, 2**63 - 1, (28, 32))
    assert (request.format, request.quality) == ("webp", 40)
    await draw(
        http,
        steps=9,
        guidance_scale=2,
        negative_prompt="Bag",
        solver="heun",
        background="opaque",
        priority=-2,
    )
    request = sent(models)
    assert (request.steps, request.guidance, request.negative) == (9, 2.0, "Bag")
    assert (request.solver, request.background, request.priority) == ("heun", "opaque", -2)
    assert (request.previews, request.source) == (0, None)


async def test_whose_request_it_is(http: httpx.AsyncClient, models: Models) -> None:
    headers = {"authorization": "Bearer key"}
    await http.post("/v1/images/generations", json={"model": "painter"}, headers=headers)
    assert len(sent(models).principal) == 16


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
        ({"response_format": ["b64_json"]}, "response_format", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"stream": True, "partial_images": 4}, "partial_images", "invalid_value"),
        ({"partial_images": 2}, "partial_images", "invalid_value"),
        ({"steps": 0}, "steps", "invalid_value"),
        ({"steps": 10_000}, "steps", "invalid_value"),
        ({"steps": 2.0}, "steps", "invalid_type"),
        ({"guidance_scale": 0.5}, "guidance_scale", "invalid_value"),
        ({"guidance_scale": 101}, "guidance_scale", "invalid_value"),
        ({"truncation": 0}, "truncation", "invalid_value"),
        ({"truncation": 1.5}, "truncation", "invalid_value"),
        ({"negative_prompt": 1}, "negative_prompt", "invalid_type"),
        ({"background": "white"}, "background", "invalid_value"),
        ({"priority": 5000}, "priority", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"quality": "hd"}, "quality", "unknown_parameter"),
        ({"style": "vivid"}, "style", "unknown_parameter"),
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


async def test_numbers_that_are_none(http: httpx.AsyncClient) -> None:
    for number in ("NaN", "Infinity", "1e999"):
        content = '{"model": "painter", "guidance_scale": ' + number + "}"
        answer = await http.post(
            "/v1/images/generations", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400


# -- streams --------------------------------------------------------------------------------------------------------------


async def events(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "painter", "prompt": "Coat", "stream": True, **fields}
    answer = await http.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *parts, end, rest = answer.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    found = []
    for part in parts:
        name, data = part.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        ImageEvent.model_validate(event)
        found.append(event)
    return found


async def test_a_stream(http: httpx.AsyncClient) -> None:
    shown = await events(http, n=2, seed=5, partial_images=2, size="28x32", output_format="webp")
    assert [(each["type"], each["index"], each["step"], each["steps"], each["seed"]) for each in shown] == [
        ("image_generation.partial_image", 0, 1, 2, 5),
        ("image_generation.completed", 0, 2, 2, 5),
        ("image_generation.partial_image", 1, 1, 2, 6),
        ("image_generation.completed", 1, 2, 2, 6),
    ]
    assert [base64.b64decode(each["b64_json"]) for each in shown[:2]] == [PNG + b"?", PNG + b"\0"]
    assert {(each["size"], each["output_format"], each["background"]) for each in shown} == {
        ("28x32", "webp", "auto")
    }
    assert [each.get("partial_image_index") for each in shown] == [0, None, 0, None]
    assert [each["usage"]["total_tokens"] for each in shown if "usage" in each] == [0, 3]
    assert [each["version"] for each in shown if "version" in each] == ["3", "3"]


async def test_a_stream_without_previews(http: httpx.AsyncClient, models: Models) -> None:
    assert [each["type"] for each in await events(http)] == ["image_generation.completed"]
    assert sent(models).previews == 0


async def test_what_fails_before_the_first_picture_is_an_ordinary_error(
    http: httpx.AsyncClient, models: Models
) -> None:
    models.failure = BadRequest("No such class.", code="unknown_class", param="prompt")
    answer = await http.post(
        "/v1/images/generations", json={"model": "painter", "prompt": "x", "stream": True}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_class")
    assert models.open_streams == 0
