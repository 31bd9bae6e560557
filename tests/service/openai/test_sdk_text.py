"""OpenAI's own client, as published, against the app: everything it has for text."""

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from deployments.messages import Chat, Embed
from tests.service.models import Models

ASK: Any = [{"role": "user", "content": "hi"}]


class Answer(BaseModel):
    place: str
    degrees: float


class Weather(BaseModel):
    """Weather at a place."""

    place: str


TOOL = openai.pydantic_function_tool(Weather, name="weather")
CALL = '{"name": "weather", "arguments": {"place": "Ulm"}}'
CALLED = ("Let me see.\n", "<tool_call>\n", CALL[:20], CALL[20:], "\n</tool_call>")


async def test_every_field_of_a_completion(client: openai.AsyncOpenAI, models: Models) -> None:
    completion = await client.completions.create(
        model="poet", prompt="a", max_tokens=2, n=2, best_of=3, seed=3, temperature=0.5, top_p=0.9, logprobs=2,
        stop=["x"], echo=True, user="me", presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={"50256": -100},
        extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 1, "stop_token_ids": [7],
                    "ignore_eos": True, "cache_prompt": False, "priority": 1, "regex": "[a-z]+", "timeout": 30},
    )  # fmt: skip
    assert [choice.text for choice in completion.choices] == ["a3 4 ", "a4 5 "]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 0
    assert models.completed.logit_bias == ((50256, -100.0),)


async def test_an_answer(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="talker", messages=ASK, max_completion_tokens=2, n=2, seed=3, temperature=0.5, top_p=0.9,
        logprobs=True, top_logprobs=2, stop="x", presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"1": 1},
        response_format={"type": "text"}, user="me", store=False, metadata={"a": "b"}, service_tier="auto",
        safety_identifier="me", prompt_cache_key="key", reasoning_effort="low", modalities=["text"],
        extra_body={"chat_template_kwargs": {"enable_thinking": False}, "min_tokens": 1},
    )  # fmt: skip
    assert [choice.message.content for choice in completion.choices] == ["3 4 ", "4 5 "]
    logprobs = completion.choices[1].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [(token.token, token.bytes) for token in logprobs.content] == [("4 ", [52, 32]), ("5 ", [53, 32])]
    assert [len(token.top_logprobs) for token in logprobs.content] == [2, 2]
    assert completion.system_fingerprint == "talker:3"
    assert completion.model_extra == {"seed": 3}


async def test_what_came_back_can_be_sent_again(client: openai.AsyncOpenAI, models: Models) -> None:
    models.says = CALLED
    first = await client.chat.completions.create(model="hermes", messages=ASK, tools=[TOOL])
    message: Any = first.choices[0].message
    answer: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21"}
    await client.chat.completions.create(model="hermes", messages=[*ASK, message, answer], tools=[TOOL])
    (prompt,) = models.completed.prompts
    assert isinstance(prompt, Chat)
    _, turn, result = prompt.messages
    assert turn["content"] == "Let me see."
    assert turn["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"place": "Ulm"}}
    assert (result["name"], result["content"]) == ("weather", "21")


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="talker",
        messages=ASK,
        max_tokens=3,
        n=2,
        seed=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts = ["", ""]
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
        last = chunk
    assert texts == ["3 4 5 ", "4 5 6 "]
    assert last.usage is not None
    assert last.usage.completion_tokens == 6


async def test_parsed_answers(client: openai.AsyncOpenAI, models: Models) -> None:
    models.says = ('{"place": "Ulm",', ' "degrees": 21}')
    completion = await client.chat.completions.parse(model="talker", messages=ASK, response_format=Answer)
    assert completion.choices[0].message.parsed == Answer(place="Ulm", degrees=21)
    grammar = models.completed.grammar
    assert grammar is not None
    assert grammar.kind == "json_schema"
    assert json.loads(grammar.source)["properties"].keys() == {"place", "degrees"}


async def test_parsed_tools(client: openai.AsyncOpenAI, models: Models) -> None:
    models.says = CALLED
    completion = await client.chat.completions.parse(model="hermes", messages=ASK, tools=[TOOL])
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == Weather(place="Ulm")
    assert models.completed.grammar is not None  # the tool is strict


async def test_the_stream_helper(client: openai.AsyncOpenAI, models: Models) -> None:
    models.says = ('{"place": "Ulm",', ' "degrees": 21}')
    async with client.chat.completions.stream(
        model="talker",
        messages=ASK,
        response_format=Answer,
        logprobs=True,
        stream_options={"include_usage": True},
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Answer(place="Ulm", degrees=21)
    assert final.choices[0].logprobs is not None
    assert len(final.choices[0].logprobs.content or []) == 2
    assert final.usage is not None
    assert {"chunk", "content.delta", "content.done", "logprobs.content.done"} <= kinds


async def test_the_stream_helper_with_tools(client: openai.AsyncOpenAI, models: Models) -> None:
    models.says = CALLED
    async with client.chat.completions.stream(model="hermes", messages=ASK, tools=[TOOL], n=2) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_completion()
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.parsed_arguments for event in done] == [Weather(place="Ulm")] * 2
    for choice in final.choices:
        assert choice.message.content == "Let me see."
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        assert choice.message.tool_calls[0].function.parsed_arguments == Weather(place="Ulm")


@pytest.mark.parametrize("form", [openai.omit, "float", "base64"])
async def test_embeddings(client: openai.AsyncOpenAI, models: Models, form: Any) -> None:
    answer = await client.embeddings.create(
        model="reader", input=["abc", "d"], dimensions=2, encoding_format=form
    )
    request = models.seen[-1]
    assert isinstance(request, Embed)
    assert request.inputs == ("abc", "d")
    if form == "base64":
        assert str(answer.data[0].embedding) == "AABAQAAAAD8="
    else:
        assert [entry.embedding for entry in answer.data] == [[3.0, 0.5], [1.0, 0.5]]
    assert answer.usage.total_tokens == 4


async def test_embeddings_of_ids(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="reader", input=[[1, 2], [3]])
    assert [entry.embedding[0] for entry in answer.data] == [2.0, 1.0]


async def test_the_key_is_who_asks(client: openai.AsyncOpenAI, models: Models) -> None:
    await client.with_options(api_key="sk-a").completions.create(model="poet", prompt="a")
    first = models.completed.principal
    await client.with_options(api_key="sk-b").completions.create(model="poet", prompt="a")
    assert len({first, models.completed.principal, ""}) == 3


async def test_errors_name_their_field(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="talker", messages=ASK, tools=[TOOL])
    assert (bad.value.param, bad.value.code) == ("tools", "task_not_supported")
