"""`/v1/images/edits` and `/v1/images/variations`, as JSON and as forms."""

import base64
import io
from typing import Any

import httpx
import openai
import pytest

from deployments.messages import Draw, Source
from service.openai.schemas.images import ImageList
from tests.service.models import PNG, Models

TEXT = base64.b64encode(PNG).decode()


def sent(models: Models) -> Draw:
    request = models.seen[-1]
    assert isinstance(request, Draw)
    return request


async def edit(http: httpx.AsyncClient, route: str = "edits", **fields: Any) -> Any:
    answer = await http.post(f"/v1/images/{route}", json={"model": "retoucher", "image": TEXT, **fields})
    assert answer.status_code == 200, answer.text
    ImageList.model_validate_json(answer.content)
    return answer.json()


async def test_an_edit(http: httpx.AsyncClient, models: Models) -> None:
    body = await edit(http, n=2, seed=5, prompt="blue", mask=TEXT, strength=0.5, task="inpaint", steps=7)
    request = sent(models)
    assert request.source == Source(PNG, PNG, "inpaint", 0.5)
    assert (request.prompt, request.n, request.seed, request.seeded, request.steps) == ("blue", 2, 5, True, 7)
    assert [base64.b64decode(entry["b64_json"]) for entry in body["data"]] == [PNG + b"\0", PNG + b"\1"]


async def test_defaults(http: httpx.AsyncClient, models: Models) -> None:
    await edit(http)
    request = sent(models)
    assert request.source == Source(PNG)
    assert (request.prompt, request.n, request.seeded) == (None, 1, False)


async def test_a_variation(http: httpx.AsyncClient, models: Models) -> None:
    await edit(http, "variations", strength=0.25, prompt="Bag")
    assert sent(models).source == Source(PNG, strength=0.25, variation=True)
    assert sent(models).prompt == "Bag"


@pytest.mark.parametrize("image", [f"data:image/png;base64,{TEXT}", [TEXT]])
async def test_other_ways_to_send_a_picture(http: httpx.AsyncClient, models: Models, image: Any) -> None:
    await edit(http, image=image)
    assert sent(models).source == Source(PNG)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"image": None}, "image", "missing_required_parameter"),
        ({"image": ""}, "image", "invalid_value"),
        ({"image": "!"}, "image", "invalid_value"),
        ({"image": [TEXT, TEXT]}, "image", "invalid_type"),
        ({"image": 5}, "image", "invalid_type"),
        ({"image": "https://example.org/a.png"}, "image", "unsupported_url"),
        ({"mask": "!"}, "mask", "invalid_value"),
        ({"task": "sharpen"}, "task", "invalid_value"),
        ({"strength": 0}, "strength", "invalid_value"),
        ({"strength": 1.5}, "strength", "invalid_value"),
        ({"input_fidelity": "high"}, "input_fidelity", "unknown_parameter"),
        ({"response_format": "url"}, "response_format", "invalid_value"),
        ({"model": "painter"}, "model", "task_not_supported"),
        ({"surprise": 1}, "surprise", "unknown_parameter"),
    ],
)
async def test_what_is_refused(http: httpx.AsyncClient, fields: Any, param: str, code: str) -> None:
    body = {"model": "retoucher", "image": TEXT, **fields}
    answer = await http.post("/v1/images/edits", json={k: v for k, v in body.items() if v is not None})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


async def test_a_variation_has_no_mask(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/images/variations", json={"model": "retoucher", "image": TEXT, "mask": TEXT}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "mask")


async def test_a_stream(http: httpx.AsyncClient) -> None:
    fields = {"model": "retoucher", "image": TEXT, "stream": True, "partial_images": 1}
    answer = await http.post("/v1/images/edits", json=fields)
    names = [line for line in answer.text.split("\n") if line.startswith("event: ")]
    assert names == ["event: image_edit.partial_image", "event: image_edit.completed"]


# -- as OpenAI's SDK sends them -------------------------------------------------------------------------------------------


def file() -> io.BytesIO:
    found = io.BytesIO(PNG)
    found.name = "picture.png"
    return found


async def test_an_edit_by_the_sdk(client: openai.AsyncOpenAI, models: Models) -> None:
    answer = await client.images.edit(
        model="retoucher",
        image=file(),
        mask=file(),
        prompt="blue",
        n=2,
        size="1024x1024",
        output_format="jpeg",
        output_compression=80,
        background="opaque",
        extra_body={"seed": 7, "strength": 0.5, "steps": 9},
    )
    assert len(answer.data or ()) == 2
    request = sent(models)
    assert request.source == Source(PNG, PNG, None, 0.5)
    assert (request.prompt, request.n, request.size, request.seed) == ("blue", 2, (1024, 1024), 7)
    assert (request.format, request.quality, request.background, request.steps) == ("jpeg", 80, "opaque", 9)


async def test_an_edit_of_a_list(client: openai.AsyncOpenAI, models: Models) -> None:
    await client.images.edit(model="retoucher", image=[file()], prompt="blue")
    assert sent(models).source == Source(PNG)


async def test_a_stream_by_the_sdk(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.edit(
        model="retoucher", image=file(), prompt="blue", stream=True, partial_images=1
    )
    assert [event.type async for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


async def test_a_variation_by_the_sdk(client: openai.AsyncOpenAI, models: Models) -> None:
    with pytest.deprecated_call():  # by OpenAI
        answer = await client.images.create_variation(model="retoucher", image=file(), n=3)
    assert len(answer.data or ()) == 3
    assert sent(models).source == Source(PNG, variation=True)


async def test_what_the_sdk_is_told(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.images.edit(model="retoucher", image=file(), prompt="x", extra_body={"strength": "half"})
    assert (error.value.param, error.value.code) == ("strength", "invalid_value")
