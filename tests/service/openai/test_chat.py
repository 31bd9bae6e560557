from typing import Any

import httpx
import orjson
import pytest

from deployments.errors import BadRequest, QueueFull, StepFailed
from deployments.messages import Chat
from service.openai.schemas.messages import RESERVED
from tests.service.models import Models
from tests.service.openai.chatting import ASK, assembled, chat, refused, sent, whole
from tests.service.openai.text_requests import TOOL

# -- answers -----------------------------------------------------------------------------------------------------------


async def test_an_answer(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/chat/completions", json={"model": "talker", "messages": ASK, "max_tokens": 2, "seed": 7}
    )
    body = answer.json()
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": f"chatcmpl-{answer.headers['x-request-id']}",
        "object": "chat.completion",
        "model": "talker",
        "system_fingerprint": "talker:3",
        "seed": 7,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "7 8 ", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["server-timing"].startswith("queue;dur=1.000")


async def test_defaults_are_openais(http: httpx.AsyncClient, models: Models) -> None:
    await http.post("/v1/chat/completions", json={"model": "talker", "messages": ASK})
    request = models.completed
    assert (request.max_tokens, request.n, request.temperature, request.logprobs) == (None, 1, 1.0, None)
    assert (request.reuse_prefix, request.grammar, request.echo) == (True, None, False)
    assert sent(models) == Chat(({"role": "user", "content": "hi"},))


async def test_both_words_for_the_limit(http: httpx.AsyncClient, models: Models) -> None:
    for fields in (
        {"max_tokens": 3},
        {"max_tokens": None, "max_completion_tokens": 3},
        {"max_completion_tokens": 3},
    ):
        await chat(http, **fields)
        assert models.completed.max_tokens == 3
    await refused(http, "max_completion_tokens", max_completion_tokens=4)


async def test_logprobs_in_openais_form(http: httpx.AsyncClient, models: Models) -> None:
    models.says = ("é",)
    body = await chat(http, logprobs=True, top_logprobs=1)
    assert body["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [
                    {"token": "alternative0", "logprob": -0.1, "bytes": list(b"alternative0")},
                ],
            }
        ],
        "refusal": None,
    }
    (bare,) = (await chat(http, logprobs=True))["choices"][0]["logprobs"]["content"]
    assert bare["top_logprobs"] == []


# -- the conversation --------------------------------------------------------------------------------------------------


async def test_a_long_conversation_in_the_words_of_templates(http: httpx.AsyncClient, models: Models) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
    await chat(
        http,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                "name": "Al",
            },
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "c1", "content": "3"},
            {"role": "assistant", "content": "Three.", "reasoning_content": "Hm.", "audio": None},
        ],
        chat_template_kwargs={"enable_thinking": False},
        reasoning_effort="low",
        max_tokens=1,
    )
    function = {"name": "find", "arguments": {"a": 1}}
    assert sent(models) == Chat(
        (
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                "name": "Al",
            },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "3", "name": "find", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Three.", "reasoning_content": "Hm."},
        ),
        (),
        {"enable_thinking": False, "reasoning_effort": "low"},
    )


USER = {"role": "user", "content": "a"}
FUNCTION = {"name": "find", "arguments": "{}"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        ([USER] * 257, "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "a"}], "messages[0].role"),
        ([{"role": "wizard", "content": "a"}], "messages[0].role"),
        ([{"role": "function", "content": "a", "name": "f"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([USER, {"role": "user", "content": None}], "messages[1].content"),
        ([{"role": "assistant"}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": {"type": "text"}}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}],
            "messages[0].content[0].type",
        ),
        ([{"role": "user", "content": "a", "colour": "red"}], "messages[0].colour"),
        ([{"role": "user", "content": "a", "name": ""}], "messages[0].name"),
        ([{"role": "user", "content": "a", "tool_calls": []}], "messages[0].tool_calls"),
        ([{**USER, "tool_calls": [{"id": "a", "function": FUNCTION}]}], "messages[0].tool_calls"),
        ([{**USER, "tool_call_id": "a"}], "messages[0].tool_call_id"),
        ([{**USER, "reasoning_content": "a"}], "messages[0].reasoning_content"),
        ([{"role": "tool", "content": "a"}], "messages[0].tool_call_id"),
        ([{"role": "assistant", "content": "a", "refusal": "no"}], "messages[0].refusal"),
        ([{"role": "assistant", "content": "a", "function_call": FUNCTION}], "messages[0].function_call"),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[]"}}],
                }
            ],
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([{"role": "user", "content": "a" * 1_048_577}], "messages"),
        ([{"role": "user", "content": "a" * 60}], "messages"),  # the model's word for it is prompt[0]
    ],
)
async def test_what_is_no_conversation(http: httpx.AsyncClient, messages: Any, param: str) -> None:
    await refused(http, param, messages=messages)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "a"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"logprobs": 2}, "logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "find"}}}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [TOOL]}, "tools"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"min_tokens": 4}, "min_tokens"),
        ({"stream_options": {}}, "stream_options"),
        ({"regex": "a", "choice": ["a"]}, "choice"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "low"}}, "reasoning_effort"),
        *(({"chat_template_kwargs": {name: 1}}, "chat_template_kwargs") for name in sorted(RESERVED)),
        ({"chat_template_kwargs": {f"a{i}": 1 for i in range(17)}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 20_000}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": [[[[[[[[1]]]]]]]]}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a-b": 1}}, "chat_template_kwargs.a-b"),
        ({"model": "poet"}, "model"),
    ],
)  # fmt: skip
async def test_contradictions_and_bounds(
    http: httpx.AsyncClient, models: Models, fields: Any, param: str
) -> None:
    await refused(http, param, **fields)
    assert models.seen == []


async def test_a_model_without_a_template_cannot_chat(http: httpx.AsyncClient) -> None:
    assert (await refused(http, "model", model="poet"))["code"] == "task_not_supported"
    assert (await refused(http, "tools", tools=[TOOL]))["code"] == "task_not_supported"


@pytest.mark.parametrize(
    ("error", "fields", "param"),
    [
        ("prompt[0]", {}, "messages"),
        ("messages", {}, "messages"),
        ("chat_template_kwargs", {"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ("chat_template_kwargs", {"reasoning_effort": "low"}, "reasoning_effort"),
        ("grammar", {"regex": "a"}, "regex"),
        ("grammar", {"model": "hermes", "tools": [TOOL], "tool_choice": "required"}, "tools"),
        ("max_tokens", {}, "max_tokens"),
        ("max_tokens", {"max_tokens": None, "max_completion_tokens": 3}, "max_completion_tokens"),
        ("logit_bias", {}, "logit_bias"),
        (None, {}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_model_refuses_is_named_as_the_client_knows_it(
    http: httpx.AsyncClient, models: Models, error: str, fields: Any, param: str, stream: bool
) -> None:
    models.failure = BadRequest("Not that.", param=error)
    await refused(http, param, stream=stream, **fields)


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_the_chunks_of_a_stream(http: httpx.AsyncClient) -> None:
    chunks = await chat(http, stream=True, stream_options={"include_usage": True}, max_tokens=2)
    assert [chunk["choices"] for chunk in chunks] == [
        [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
        [{"index": 0, "delta": {"content": "7 "}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "8 "}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}],
        [],
    ]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["seed"]) for chunk in chunks}) == 1


async def test_a_stream_without_usage(http: httpx.AsyncClient) -> None:
    assert all("usage" not in chunk for chunk in await chat(http, stream=True))


@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"n": 2, "logprobs": True, "top_logprobs": 2}])
async def test_a_stream_says_the_same_in_pieces(http: httpx.AsyncClient, fields: Any) -> None:
    body = await chat(http, **fields)
    chunks = await chat(http, stream=True, **fields)
    assert len(body["choices"]) == fields.get("n", 1)
    for choice in body["choices"]:
        assert assembled(chunks, choice["index"]) == whole(choice)


async def test_a_failure_midway_is_an_event_and_a_clean_end(http: httpx.AsyncClient, models: Models) -> None:
    models.failure, models.fails_after = StepFailed("A step failed."), 2
    answer = await http.post(
        "/v1/chat/completions", json={"model": "talker", "messages": ASK, "max_tokens": 4, "stream": True}
    )
    *lines, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200
    assert orjson.loads(last)["error"]["code"] == "step_failed"
    assert [orjson.loads(line)["choices"][0]["finish_reason"] for line in lines] == [None] * len(lines)
    assert models.open_streams == 0


async def test_a_failure_before_the_first_token_is_an_ordinary_error(
    http: httpx.AsyncClient, models: Models
) -> None:
    models.failure = QueueFull("Full.")
    answer = await http.post(
        "/v1/chat/completions", json={"model": "talker", "messages": ASK, "stream": True}
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_an_answer_of_nothing_is_an_answer(http: httpx.AsyncClient, models: Models) -> None:
    models.says = ("",)
    assert whole((await chat(http))["choices"][0]) == assembled(await chat(http, stream=True))
