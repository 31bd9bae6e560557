import json
from typing import Any

import httpx
import pytest

from tests.service.models import Models
from tests.service.openai.chatting import assembled, chat, refused, sent, whole
from tests.service.openai.text_requests import SCHEMA, TOOL

CALL = '{"name": "find", "arguments": {"a": 1}}'
SAID: dict[str, tuple[str, ...]] = {
    "hermes": ("Let me ", "see.\n<tool", f"_call>\n{CALL[:9]}", CALL[9:], "\n</tool_call>"),
    "llama": (CALL.replace("arguments", "parameters")[:4], CALL.replace("arguments", "parameters")[4:]),
    "mistral": ("[TOOL_", "CALLS][", CALL, "]"),
}


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("model", SAID)
async def test_calls_of_tools(http: httpx.AsyncClient, models: Models, model: str, logprobs: bool) -> None:
    models.says = SAID[model]
    fields = {"model": model, "tools": [TOOL], "n": 2, "logprobs": logprobs}
    body = await chat(http, **fields)
    chunks = await chat(http, stream=True, **fields)
    for choice in body["choices"]:
        said = whole(choice)
        assert said["calls"] == [{"name": "find", "arguments": '{"a": 1}'}]
        assert said["finish"] == "tool_calls"
        assert said["text"] == ("Let me see." if model == "hermes" else "")
        assert (choice["message"]["content"] is None) == (model != "hermes")
        assert len(said["scores"]) == (len(models.says) if logprobs else 0)
        assert assembled(chunks, choice["index"]) == said
    ids = [choice["message"]["tool_calls"][0]["id"] for choice in body["choices"]]
    assert len(set(ids)) == 2
    assert all(
        len(one) == 9 and one.isalnum() if model == "mistral" else one.startswith("call_") for one in ids
    )
    assert sent(models).tools == (TOOL,)


async def test_a_call_that_is_cut_off_is_text(http: httpx.AsyncClient, models: Models) -> None:
    models.says = SAID["hermes"][:3]
    said = whole((await chat(http, model="hermes", tools=[TOOL]))["choices"][0])
    assert (said["text"], said["calls"], said["finish"]) == ("".join(models.says), [], "stop")


async def test_one_call_at_a_time(http: httpx.AsyncClient, models: Models) -> None:
    models.says = (f"<tool_call>{CALL}</tool_call>\n" * 3,)
    for several, count in ((True, 3), (False, 1)):
        body = await chat(http, model="hermes", tools=[TOOL], parallel_tool_calls=several)
        assert len(body["choices"][0]["message"]["tool_calls"]) == count


async def test_no_tools_are_offered_where_none_may_be_called(http: httpx.AsyncClient, models: Models) -> None:
    models.says = SAID["hermes"]
    body = await chat(
        http, model="hermes", tools=[TOOL], tool_choice="none", response_format={"type": "json_object"}
    )
    assert sent(models).tools == ()
    assert body["choices"][0]["message"]["content"] == "".join(SAID["hermes"])


STRICT = {"type": "function", "function": {"name": "find", "parameters": SCHEMA, "strict": True}}
OTHER = {"type": "function", "function": {"name": "other"}}
NAMED = {"type": "function", "function": {"name": "find"}}


@pytest.mark.parametrize("model", SAID)
async def test_how_freely_a_model_may_call(http: httpx.AsyncClient, models: Models, model: str) -> None:
    async def grammar(**fields: Any) -> str:
        await chat(http, model=model, **fields)
        sent_grammar = models.completed.grammar
        if sent_grammar is None:
            return ""
        assert sent_grammar.kind == "lark"
        return sent_grammar.source

    assert await grammar(tools=[TOOL, OTHER]) == ""
    assert await grammar(tools=[TOOL, OTHER], tool_choice="auto") == ""
    forced = await grammar(tools=[TOOL, OTHER], tool_choice="required")
    named = await grammar(tools=[TOOL, OTHER], tool_choice=NAMED)
    strict = await grammar(tools=[STRICT, OTHER])
    assert json.dumps(SCHEMA)[:-1] in forced
    assert "other" in forced
    assert "other" not in named
    assert "TEXT" in strict
    assert len({forced, named, strict}) == 3
    json_or_calls = {"tools": [TOOL, OTHER], "response_format": {"type": "json_object"}}
    if model == "llama":  # its calls are JSON themselves
        await refused(http, "response_format", model=model, **json_or_calls)
    else:
        assert "answer: %json" in await grammar(**json_or_calls)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "x": 1}}]}, "tools[0].function.x"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [OTHER] * 129}, "tools"),
        ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": 1}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tools": [OTHER], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TOOL], "regex": "a"}, "regex"),
        ({"tools": [TOOL], "choice": ["a"]}, "choice"),
        ({"tools": [TOOL], "grammar": 'start: "a"'}, "grammar"),
        (
            {"tools": [TOOL], "response_format": {"type": "json_object"}, "tool_choice": NAMED},
            "response_format",
        ),
        (
            {"tools": [TOOL], "response_format": {"type": "json_object"}, "tool_choice": "required"},
            "response_format",
        ),
    ],
)
async def test_what_is_wrong_with_tools(
    http: httpx.AsyncClient, models: Models, fields: Any, param: str
) -> None:
    await refused(http, param, model="hermes", **fields)
    assert models.seen == []
