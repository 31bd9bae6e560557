"""The text routes over real engines: kilobyte packages, loaded, batched and run."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import numpy as np
import openai
import orjson
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from model_store.seal import seal
from service.api import create_app
from service.openai.schemas.chat import ChatCompletion
from service.openai.schemas.embeddings import ClassificationList, EmbeddingList
from service.openai.schemas.text import Completion
from service.openai.schemas.tokens import Detokenized, Tokens
from service.settings import Settings
from tests import packages
from tests.encoders import WIDTH, encoder

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
    "{% for message in messages %}{{ message.content }}{% endfor %}{{ mood }}"
)
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "z",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": ["yes"]}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


def chatty(folder: Path, name: str, tools: str | None) -> None:
    """The "+1" decoder with a chat template: after the conversation's last letter comes the next one."""
    place = packages.text(folder, name=name, attention=True, context=512)
    fields = json.loads((place / "model.json").read_bytes())
    fields["capabilities"] += ["chat"]
    fields["text"]["chat"] = {"template": "chat_template.jinja", "tools": tools}
    del fields["files"]
    (place / "chat_template.jinja").write_text(TEMPLATE)
    seal(place, fields)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    store = tmp_path_factory.mktemp("store")
    packages.text(store)
    chatty(store, "talker", None)
    for form in ("hermes", "llama3", "mistral"):
        chatty(store, form, form)
    encoder(store, name="reader")
    encoder(store, name="critic", classes=("cold", "warm", "hot"))
    opened = open_studio(HostConfig(store=str(store), threads=1, slots=8), Metrics(CollectorRegistry()))
    yield opened
    opened.close()


@pytest.fixture
async def http(studio: Studio) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(studio, Settings(), Metrics(CollectorRegistry())))
    async with httpx.AsyncClient(transport=transport, base_url="http://atelier") as client:
        yield client


@pytest.fixture
async def client(studio: Studio) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.ASGITransport(create_app(studio, Settings(), Metrics(CollectorRegistry())))
    async with openai.DefaultAsyncHttpxClient(transport=transport) as speaker:
        yield openai.AsyncOpenAI(base_url="http://atelier/v1", api_key="none", http_client=speaker)


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def post(http: httpx.AsyncClient, route: str, **fields: Any) -> Any:
    answer = await http.post(f"/v1/{route}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(http: httpx.AsyncClient, route: str, **fields: Any) -> tuple[str, str]:
    answer = await http.post(f"/v1/{route}", json=fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"]


async def test_every_kind_of_answer_is_as_documented(http: httpx.AsyncClient) -> None:
    everything = {"n": 2, "best_of": 3, "logprobs": 5, "echo": True, "seed": 1, "max_tokens": 4}
    Completion.model_validate(await post(http, "completions", model="tiny-text", prompt="ab", **everything))
    scores = {"logprobs": True, "top_logprobs": 5, "n": 2, "max_tokens": 4}
    chat = await post(http, "chat/completions", model="talker", messages=ask("ab"), **scores)
    ChatCompletion.model_validate(chat)
    EmbeddingList.model_validate(await post(http, "embeddings", model="reader", input=["a", "b"]))
    classes = await post(http, "classifications", model="critic", input="a")
    ClassificationList.model_validate(classes)
    assert {entry["label"] for entry in classes["data"][0]["classes"]} == {"cold", "warm", "hot"}
    for model in ("tiny-text", "talker", "reader"):
        tokens = await post(http, "tokenize", model=model, prompt="abc", return_token_strs=True)
        Tokens.model_validate(tokens)
        assert (tokens["tokens"], tokens["token_strs"]) == ([97, 98, 99], ["a", "b", "c"])
        text = await post(http, "detokenize", model=model, tokens=[97, 98])
        assert Detokenized.model_validate(text).prompt == "ab"


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}])
async def test_a_chat_whole_and_in_pieces(http: httpx.AsyncClient, fields: Any) -> None:
    body = {"model": "talker", "messages": ask("ab"), "max_tokens": 5, "temperature": 0, **fields}
    whole = await post(http, "chat/completions", **body)
    assert {choice["message"]["content"] for choice in whole["choices"]} == {"cdefg"}
    streamed = await http.post("/v1/chat/completions", json={**body, "stream": True})
    texts, scores = [""] * len(whole["choices"]), 0
    for line in streamed.text.split("\n\n")[:-2]:
        for choice in orjson.loads(line.removeprefix("data: "))["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
            scores += len(choice["logprobs"]["content"]) if choice["logprobs"] else 0
    assert texts == ["cdefg"] * len(texts)
    assert scores == (5 if "logprobs" in fields else 0)


async def test_a_chat_goes_on_as_long_as_the_context_holds(http: httpx.AsyncClient) -> None:
    body = await post(http, "chat/completions", model="talker", messages=ask("ab"), temperature=0)
    assert body["choices"][0]["finish_reason"] == "stop"  # z, {, ... 255, and 0 is the end
    assert body["usage"]["completion_tokens"] == 256 - 98


async def test_templates_see_variables_and_tools(http: httpx.AsyncClient) -> None:
    body = {"model": "hermes", "messages": ask("ab"), "max_tokens": 2, "temperature": 0}
    varied = await post(http, "chat/completions", **body, chat_template_kwargs={"mood": "x"})
    assert varied["choices"][0]["message"]["content"] == "yz"
    tokens = await post(http, "tokenize", model="hermes", messages=ask("ab"), tools=[TOOL])
    assert bytes(tokens["tokens"]) == b"zab"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": ask("a" * 512)}, "context_length_exceeded", "messages"),
        ({"messages": ask("a"), "max_completion_tokens": 512}, "context_length_exceeded", "messages"),
        (
            {"messages": ask("a"), "chat_template_kwargs": {"colour": 1}},
            "invalid_value",
            "chat_template_kwargs",
        ),
        ({"messages": ask("a"), "reasoning_effort": "low"}, "invalid_value", "reasoning_effort"),
        ({"messages": ask("a"), "logit_bias": {"256": 1}}, "invalid_value", "logit_bias"),
        ({"messages": ask("a"), "stop_token_ids": [256]}, "invalid_value", "stop_token_ids"),
        ({"messages": ask("a"), "tools": [TOOL]}, "task_not_supported", "tools"),
        ({"messages": ask("a"), "model": "tiny-text"}, "task_not_supported", "model"),
        ({"messages": ask("a"), "model": "reader"}, "task_not_supported", "model"),
    ],
)
async def test_what_the_model_refuses(http: httpx.AsyncClient, fields: Any, code: str, param: str) -> None:
    for stream in (False, True):
        body = {"model": "talker", "stream": stream, **fields}
        assert await refused(http, "chat/completions", **body) == (code, param)


async def test_what_encoders_and_tokenizers_refuse(http: httpx.AsyncClient) -> None:
    assert (await refused(http, "embeddings", model="reader", input="a" * 10_000))[1] == "input"
    assert (await refused(http, "embeddings", model="reader", input=["a", "b" * 10_000]))[1] == "input[1]"
    assert (await refused(http, "embeddings", model="reader", input=[256]))[1] == "input"
    assert (await refused(http, "embeddings", model="reader", input="a", dimensions=WIDTH + 1))[
        1
    ] == "dimensions"
    assert (await refused(http, "embeddings", model="critic", input="a"))[1] == "model"
    assert (await refused(http, "classifications", model="reader", input="a"))[1] == "model"
    assert (await refused(http, "detokenize", model="talker", tokens=[256]))[1] == "tokens"
    assert (await refused(http, "tokenize", model="reader", messages=ask("a")))[1] == "messages"


async def test_one_seed_one_answer_alone_and_in_company(http: httpx.AsyncClient) -> None:
    async def once(seed: int) -> Any:
        fields = {
            "temperature": 2,
            "top_p": 0.9,
            "min_p": 0.01,
            "presence_penalty": 1,
            "frequency_penalty": 0.5,
        }
        return (
            await post(
                http, "chat/completions", model="talker", messages=ask("ab"), max_tokens=20, seed=seed, n=2,
                repetition_penalty=1.1, logit_bias={"99": 3}, **fields,
            )
        )["choices"]  # fmt: skip

    alone = [await once(seed) for seed in range(4)]
    assert await asyncio.gather(*map(once, range(4))) == alone
    assert len({str(answer) for answer in alone}) == 4


async def test_what_openais_client_makes_of_it(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="talker", messages=ask("ab"), temperature=0, max_tokens=6, stop="g", stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "cdef"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 2
    forms: list[Any] = [openai.omit, "float"]
    for form in forms:
        answer = await client.embeddings.create(model="reader", input=["abc", "d"], encoding_format=form)
        norms = [float(np.linalg.norm(entry.embedding)) for entry in answer.data]
        assert norms == pytest.approx([1, 1], abs=1e-5)
        assert answer.usage.prompt_tokens == 4


# -- what the text must be ---------------------------------------------------------------------------------------------


def as_schema(schema: Any) -> Any:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"choice": ["xyz", "abc"]}, {"xyz", "abc"}),
        ({"regex": "[0-4]{2}-[x]"}, {f"{a}{b}-x" for a in range(5) for b in range(5)}),
        ({"grammar": 'start: "a" | "bc"'}, {"a", "bc"}),
        (as_schema({"enum": [1, "x"]}), {"1", '"x"'}),
    ],
)
async def test_constraints(http: httpx.AsyncClient, fields: Any, texts: set[str], stream: bool) -> None:
    for body in ({"prompt": "ab", "model": "tiny-text"}, {"messages": ask("ab"), "model": "talker"}):
        route = "completions" if "prompt" in body else "chat/completions"
        answer = await http.post(
            f"/v1/{route}", json={**body, "max_tokens": 30, "n": 2, "stream": stream, **fields}
        )
        assert answer.status_code == 200, answer.text
        if not stream:
            choices = answer.json()["choices"]
            found = [choice.get("text") or choice["message"]["content"] for choice in choices]
        else:
            found = ["", ""]
            for line in answer.text.split("\n\n")[:-2]:
                for choice in orjson.loads(line.removeprefix("data: "))["choices"]:
                    found[choice["index"]] += choice.get("text", "") or choice.get("delta", {}).get(
                        "content", ""
                    )
        assert set(found) <= texts


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "z"}}])
@pytest.mark.parametrize("form", ["hermes", "llama3", "mistral"])
async def test_forced_calls(client: openai.AsyncOpenAI, form: str, choice: Any) -> None:
    completion = await client.chat.completions.create(
        model=form,
        messages=ask("ab"),
        tools=[TOOL],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=120,
    )
    (found,) = completion.choices
    assert found.finish_reason == "tool_calls"
    assert found.message.content is None
    assert found.message.tool_calls is not None
    (made,) = found.message.tool_calls
    assert made.type == "function"
    assert (made.function.name, json.loads(made.function.arguments)) == ("z", {"a": "yes"})


async def test_calls_that_are_held_to_their_schema(client: openai.AsyncOpenAI) -> None:
    strict: Any = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    completion = await client.chat.completions.create(
        model="hermes", messages=ask("ab"), tools=[strict], max_tokens=5, temperature=0
    )
    assert completion.choices[0].message.content == "cdefg"


BAD_TOOL = {"type": "function", "function": {"name": "z", "parameters": {"type": "nothing"}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"regex": "(a"}, "regex"),
        ({"regex": "(((a{1000}){1000}){1000})"}, "regex"),
        ({"grammar": "start: other"}, "grammar"),
        ({"grammar": "nonsense"}, "grammar"),
        (as_schema({"type": "nothing"}), "response_format"),
        (as_schema({"type": "string", "pattern": "(a"}), "response_format"),
        (as_schema({"$ref": "#/$defs/missing"}), "response_format"),
        ({"tools": [BAD_TOOL], "tool_choice": "required"}, "tools"),
    ],
)
async def test_constraints_that_cannot_be_read(http: httpx.AsyncClient, fields: Any, param: str) -> None:
    for stream in (False, True):
        body = {"model": "hermes", "messages": ask("a"), "stream": stream, **fields}
        assert await refused(http, "chat/completions", **body) == ("invalid_value", param)
