"""OpenAI's own client, as published, against the app."""

import base64

import openai
import pytest

from deployments.errors import QueueFull
from tests.service.models import PNG, Models


async def test_a_completion(client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(
        model="poet", prompt=["a", "b"], max_tokens=2, n=2, seed=3, temperature=0.5, top_p=0.9, logprobs=2,
        stop=["x"], echo=False, user="someone", presence_penalty=0, frequency_penalty=0, logit_bias={}, suffix=None,
        extra_body={"top_k": 5, "timeout": 30},
    )  # fmt: skip
    assert [choice.text for choice in completion.choices] == ["3 4 ", "4 5 ", "5 6 ", "6 7 "]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 10
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["3 ", "4 "]
    assert completion.model_extra == {"seed": 3}
    assert completion.system_fingerprint == "poet:3"


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="poet", prompt="a", max_tokens=3, seed=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "3 4 5 "
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_a_stream_that_is_closed_early(client: openai.AsyncOpenAI, models: Models) -> None:
    stream = await client.completions.create(model="poet", prompt="a", max_tokens=60, stream=True)
    async for _ in stream:
        break
    await stream.close()
    assert models.open_streams == 0


async def test_a_stream_that_fails_midway(client: openai.AsyncOpenAI, models: Models) -> None:
    models.failure, models.fails_after = QueueFull("The line is full."), 1
    stream = await client.completions.create(model="poet", prompt="a", max_tokens=3, stream=True)
    with pytest.raises(openai.APIError, match=r"The line is full\."):
        async for _ in stream:
            pass


async def test_pictures(client: openai.AsyncOpenAI) -> None:
    answer = await client.images.generate(
        model="painter", prompt="Coat", n=2, size="auto", output_format="jpeg", output_compression=80,
        response_format="b64_json", extra_body={"seed": 5},
    )  # fmt: skip
    assert answer.data is not None
    assert [base64.b64decode(image.b64_json or "") for image in answer.data] == [PNG + b"\x00", PNG + b"\x01"]
    assert answer.data[0].model_extra == {"seed": 5, "steps": 1, "version": "3"}
    assert (answer.size, answer.output_format) == ("auto", "jpeg")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0


async def test_pictures_as_they_come(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.generate(
        model="painter", prompt="Coat", stream=True, partial_images=1, extra_body={"seed": 5}
    )
    partial, completed = [event async for event in stream]
    assert partial.type == "image_generation.partial_image"
    assert (partial.partial_image_index, base64.b64decode(partial.b64_json)) == (0, PNG + b"?")
    assert completed.type == "image_generation.completed"
    assert (completed.usage.total_tokens, base64.b64decode(completed.b64_json)) == (3, PNG + b"\x00")


async def test_errors_are_the_clients_own_classes(client: openai.AsyncOpenAI, models: Models) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.completions.create(model="gpt-4o", prompt="a")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.completions.create(model="poet", prompt="a", n=9)
    assert (bad.value.code, bad.value.param, bad.value.type) == (
        "invalid_value",
        "n",
        "invalid_request_error",
    )
    models.failure = QueueFull("The line is full.")
    with pytest.raises(openai.RateLimitError) as full:
        await client.completions.create(model="poet", prompt="a")
    assert full.value.response.headers["retry-after"] == "1"
    assert full.value.request_id == full.value.response.headers["x-request-id"]


async def test_the_client_tries_again_when_told_to(client: openai.AsyncOpenAI, models: Models) -> None:
    models.failure = QueueFull("The line is full.", retry_after_seconds=0)
    assert (await client.with_options(max_retries=1).completions.create(model="poet", prompt="a")).choices
