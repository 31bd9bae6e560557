"""Every request for text: its route, a good body, and another value for each of its own fields."""

from typing import Any

from pydantic import BaseModel

from service.openai.schemas.chat import ChatRequest
from service.openai.schemas.embeddings import ClassificationRequest, EmbeddingRequest
from service.openai.schemas.fields import Body
from service.openai.schemas.messages import (
    Function,
    FunctionCall,
    Message,
    NamedFunction,
    NamedTool,
    TextPart,
    Tool,
    ToolCall,
)
from service.openai.schemas.sampling import JsonSchema, ResponseFormat
from service.openai.schemas.text import CompletionRequest
from service.openai.schemas.tokens import DetokenizeRequest, TokenizeRequest

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "find", "parameters": SCHEMA}}
SAMPLING: dict[str, Any] = {
    "min_tokens": 2,
    "n": 2,
    "best_of": 2,
    "stop": "x",
    "stop_token_ids": [3],
    "ignore_eos": True,
    "seed": 2,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "repetition_penalty": 1.1,
    "logit_bias": {"1": 1},
    "response_format": {"type": "json_object"},
    "regex": "[a-z]+",
    "choice": ["yes", "no"],
    "grammar": 'start: "a"',
    "stream": True,
    "stream_options": {"include_usage": True},
    "cache_prompt": False,
    "priority": -1,
}

TEXT_REQUESTS: list[tuple[type[Body], str, dict[str, Any], dict[str, Any]]] = [
    (
        CompletionRequest,
        "completions",
        {"model": "poet", "prompt": "ab", "seed": 1},
        {**SAMPLING, "prompt": "abc", "max_tokens": 3, "echo": True, "logprobs": 0, "suffix": "end"},
    ),
    (
        ChatRequest,
        "chat/completions",
        {"model": "hermes", "messages": [{"role": "user", "content": "ab"}], "seed": 1},
        {
            **SAMPLING,
            "messages": [{"role": "system", "content": "ab"}],
            "max_tokens": 3,
            "max_completion_tokens": 3,
            "logprobs": True,
            "top_logprobs": 2,
            "tools": [TOOL],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "chat_template_kwargs": {"enable_thinking": False},
            "reasoning_effort": "low",
            "echo": True,
            "functions": [{"name": "find"}],
            "function_call": "auto",
            "modalities": ["audio"],
            "audio": {"voice": "alloy"},
            "prediction": {"type": "content", "content": "a"},
            "verbosity": "high",
            "web_search_options": {},
            "prompt_cache_retention": "24h",
            "prompt_cache_options": {"mode": "x"},
        },
    ),
    (
        EmbeddingRequest,
        "embeddings",
        {"model": "reader", "input": "abc"},
        {"input": ["abc", "d"], "encoding_format": "base64", "dimensions": 2, "priority": 5},
    ),
    (
        ClassificationRequest,
        "classifications",
        {"model": "critic", "input": ["abc"]},
        {"input": [[1, 2]], "priority": 5},
    ),
    (
        TokenizeRequest,
        "tokenize",
        {"model": "hermes", "prompt": "abc"},
        {
            "prompt": "abcd",
            "messages": [{"role": "user", "content": "a"}],
            "add_special_tokens": False,
            "return_token_strs": True,
            "tools": [TOOL],
            "chat_template_kwargs": {"a": 1},
        },
    ),
    (DetokenizeRequest, "detokenize", {"model": "hermes", "tokens": [97]}, {"tokens": [97, 98]}),
]

# -- fields that mean something beside others ---------------------------------------------------------------------------

CALLED = ('<tool_call>{"name": "find", "arguments": {}}</tool_call>' * 2,)
ASK: dict[str, Any] = {"model": "hermes", "messages": [{"role": "user", "content": "a"}], "seed": 1}
OTHER = {"type": "function", "function": {"name": "other"}}
NAMED = {"type": "function", "function": {"name": "find"}}

BESIDE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("chat/completions", {**ASK, "logprobs": True}, {"top_logprobs": 2}),
    (
        "chat/completions",
        {**ASK, "tools": [TOOL, OTHER]},
        {"tool_choice": NAMED, "parallel_tool_calls": False, "tools": [TOOL]},
    ),
    ("chat/completions", {**ASK, "tools": [TOOL]}, {"tool_choice": "none"}),
    ("chat/completions", {**ASK, "tools": [TOOL]}, {"tool_choice": "required"}),
    ("completions", {"model": "poet", "prompt": "a", "seed": 1, "n": 2}, {"best_of": 3}),
    (
        "completions",
        {"model": "poet", "prompt": "a", "seed": 1, "stream": True},
        {"stream_options": {"include_usage": True}},
    ),
    ("chat/completions", {**ASK, "stream": True}, {"stream_options": {"include_usage": True}}),
    (
        "tokenize",
        {"model": "hermes", "messages": ASK["messages"]},
        {"tools": [TOOL], "chat_template_kwargs": {"a": 1}, "messages": [{"role": "user", "content": "b"}]},
    ),
]

# -- parts of requests: for each field a route, a good body, another with another value, and what a refusal names. The
# -- place is "" where the field is documented as ignored.

Case = tuple[str, dict[str, Any], dict[str, Any], str]


def _message(good: dict[str, Any], other: dict[str, Any], field: str) -> Case:
    def body(message: dict[str, Any]) -> dict[str, Any]:
        return {**ASK, "messages": [message]}

    return "chat/completions", body(good), body({**good, **other}), f"messages[0].{field}"


def _turn(message: dict[str, Any], **other: Any) -> Case:
    return _message(message, other, next(iter(other)))


def _call(field: str, **other: Any) -> Case:
    def body(call: dict[str, Any]) -> dict[str, Any]:
        return {**ASK, "messages": [{"role": "assistant", "tool_calls": [call]}]}

    call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    return "chat/completions", body(call), body({**call, **other}), f"messages[0].tool_calls[0].{field}"


def _tool(field: str, **other: Any) -> Case:
    def body(function: dict[str, Any]) -> dict[str, Any]:
        return {**ASK, "tools": [{"type": "function", "function": function}]}

    return (
        "chat/completions",
        body({"name": "find"}),
        body({"name": "find", **other}),
        f"tools[0].function.{field}",
    )


def _choice(choice: dict[str, Any], place: str) -> Case:
    body = {**ASK, "tools": [TOOL, OTHER]}
    return "chat/completions", {**body, "tool_choice": NAMED}, {**body, "tool_choice": choice}, place


def _format(ignored: bool, **other: Any) -> Case:
    def body(schema: dict[str, Any]) -> dict[str, Any]:
        return {**ASK, "response_format": {"type": "json_schema", "json_schema": schema}}

    schema = {"name": "a", "schema": SCHEMA}
    place = "" if ignored else "response_format.json_schema.schema"
    return "chat/completions", body(schema), body({**schema, **other}), place


USER = {"role": "user", "content": "a"}
ASSISTANT = {"role": "assistant", "content": "a"}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
CALL = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}

TEXT_PARTS: dict[type[BaseModel], dict[str, Case]] = {
    Message: {
        "role": _turn(USER, role="system"),
        "content": _turn(USER, content=[{"type": "text", "text": "b"}]),
        "name": _turn(USER, name="Al"),
        "tool_calls": _turn(ASSISTANT, tool_calls=[CALL]),
        "tool_call_id": _turn({"role": "tool", "content": "a", "tool_call_id": "b"}, tool_call_id="c"),
        "reasoning_content": _turn(ASSISTANT, reasoning_content="b"),
        "refusal": _turn(ASSISTANT, refusal="b"),
        "annotations": _turn(ASSISTANT, annotations=[{}]),
        "audio": _turn(ASSISTANT, audio={"id": "b"}),
        "function_call": _turn(ASSISTANT, function_call={"name": "find", "arguments": "{}"}),
    },
    TextPart: {
        "type": _message(
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"content": [{"type": "image_url", "text": "a"}]},
            "content[0].type",
        ),
        "text": _turn(
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            content=[{"type": "text", "text": "b"}],
        ),
    },
    ToolCall: {
        "id": _call("id", id="b"),
        "type": _call("type", type="custom"),
        "function": _call("function", function={"name": "other", "arguments": "{}"}),
    },
    FunctionCall: {
        "name": _call("function.name", function={"name": "other", "arguments": "{}"}),
        "arguments": _call("function.arguments", function={"name": "find", "arguments": '{"a": 1}'}),
    },
    Tool: {
        "type": (
            "chat/completions",
            {**ASK, "tools": [TOOL]},
            {**ASK, "tools": [{**TOOL, "type": "custom"}]},
            "tools[0].type",
        ),
        "function": _tool("name", name="other"),
    },
    Function: {
        "name": _tool("name", name="other"),
        "description": _tool("description", description="Finds."),
        "parameters": _tool("parameters", parameters=SCHEMA),
        "strict": _tool("strict", strict=True),
    },
    NamedTool: {
        "type": _choice({**NAMED, "type": "custom"}, "tool_choice.type"),
        "function": _choice(OTHER, "tool_choice"),
    },
    NamedFunction: {"name": _choice({"type": "function", "function": {"name": "other"}}, "tool_choice")},
    ResponseFormat: {
        "type": (
            "chat/completions",
            ASK,
            {**ASK, "response_format": {"type": "json_object"}},
            "response_format",
        ),
        "json_schema": ("chat/completions", ASK, {**ASK, "response_format": FORMAT}, "response_format"),
    },
    JsonSchema: {
        "name": _format(True, name="b"),
        "schema": _format(False, schema={"type": "null"}),
        "description": _format(True, description="b"),
        "strict": _format(True, strict=True),
    },
}
