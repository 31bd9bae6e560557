"""Bad input, case by case: the answer names what is wrong, is small JSON, and the next good request works.

Numbers are those of the project's list of bad inputs.
"""

import base64
import time
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from service.openai.schemas.errors import ErrorBody
from tests.service.models import Models
from tests.service.wire import JSON, Exchange

GOOD = {"model": "poet", "prompt": "ab", "max_tokens": 2}
SCORE = {"model": "mirror", "input": [{"tensor": {"data": [0.5]}}]}
DRAW = {"model": "painter", "prompt": "Coat"}
CHAT = {"model": "hermes", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
GOODS: dict[str, dict[str, Any]] = {
    "completions": GOOD,
    "chat/completions": CHAT,
    "embeddings": {"model": "reader", "input": "a"},
    "classifications": {"model": "critic", "input": "a"},
    "tokenize": {"model": "poet", "prompt": "a"},
    "detokenize": {"model": "poet", "tokens": [97]},
    "anomalies": SCORE,
    "images/generations": DRAW,
}
LEAKS = (b"Traceback", b"/home", b"/work", b".py", b"pydantic", b"Request(", b"object at", b"class ")


async def judge(app: FastAPI, exchange: Exchange, status: int, *, seconds: float = 1.0) -> Any:
    """Send it, check what holds for every refusal, then send a good request."""
    began = time.process_time()
    await exchange.run(app)
    took = time.process_time() - began
    assert exchange.status == status, exchange.body
    assert took < seconds
    assert exchange.ended
    assert exchange.answer_headers["content-type"] == "application/json"
    assert len(exchange.body) <= 2048
    assert not any(leak in exchange.body for leak in LEAKS)
    again = await Exchange("/v1/completions", [orjson.dumps(GOOD)]).run(app)
    assert again.status == 200
    return exchange.json if status == 200 else ErrorBody.model_validate_json(exchange.body).error


BODIES: list[tuple[str, bytes, str, str | None]] = [
    ("B01 empty", b"", "invalid_json", None),
    ("B02 cut off", b"{", "invalid_json", None),
    ("B02 trailing comma", b'{"model":"poet",}', "invalid_json", None),
    ("B02 single quotes", b"{'model':'poet'}", "invalid_json", None),
    ("B02 two objects", b"{}{}", "invalid_json", None),
    ("B02 an array", b"[]", "invalid_type", None),
    ("B04 bad UTF-8", b'{"model":"poet","prompt":"\xff"}', "invalid_json", None),
    ("B04 UTF-16", orjson.dumps(GOOD).decode().encode("utf-16"), "invalid_json", None),
    ("B04 BOM", b"\xef\xbb\xbf" + orjson.dumps(GOOD), "invalid_json", None),
    ("B05 101 levels", b'{"model":"poet","prompt":' + b"[" * 100 + b"]" * 100 + b"}", "invalid_json", None),
    ("B05 5 000 levels", b'{"prompt":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "invalid_json", None),
    ("B05 1 000 000 levels", b"[" * 1_000_000, "invalid_json", None),
    ("B05 1 000 000 objects", b'{"a":' * 200_000, "invalid_json", None),
    ("B08 duplicate", b'{"model":"poet","model":"mirror","prompt":"a"}', "duplicate_key", "model"),
    ("B08 duplicate inside", b'{"model":"mirror","input":[{"tensor":{"data":[1],"data":[2]}}]}', "duplicate_key", "data"),
    ("B10 lone surrogate", b'{"model":"poet","prompt":"\\ud800"}', "invalid_json", None),
    ("NaN", b'{"model":"poet","prompt":"a","temperature":NaN}', "invalid_json", None),
    ("Infinity", b'{"model":"poet","prompt":"a","temperature":Infinity}', "invalid_json", None),
    ("1e400", b'{"model":"mirror","input":[{"tensor":{"data":[1e400]}}]}', "invalid_json", None),
    ("many members", orjson.dumps({"model": "poet", **{str(i): i for i in range(9999)}}), "invalid_json", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "param"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES]
)
async def test_what_is_no_json(app: FastAPI, body: bytes, code: str, param: str | None) -> None:
    for route in ("/v1/completions", "/v1/anomalies"):
        error = await judge(app, Exchange(route, [body]), 400)
        assert (error.code, error.param) == (code, param)


NAMED = {"name": "a", "schema": {}}


def _format(**schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def _tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


FIELDS: list[tuple[str, str, dict[str, Any], str]] = [
    ("B11 NUL in a name", "completions", {"model": "po\x00et"}, "model"),
    ("no model", "completions", {"model": None}, "model"),
    ("unknown field", "completions", {"max_token": 5}, "max_token"),
    ("unknown field, long", "completions", {"x" * 10_000: 5}, "x" * 160),
    ("B34 n 0", "completions", {"n": 0}, "n"),
    ("B34 n -1", "completions", {"n": -1}, "n"),
    ("B34 n 9", "completions", {"n": 9}, "n"),
    ("B34 n 10^9", "completions", {"n": 10**9}, "n"),
    ("n true", "completions", {"n": True}, "n"),
    ("n 1.0", "completions", {"n": 1.0}, "n"),
    ("n text", "completions", {"n": "1"}, "n"),
    ("B35 temperature -0.1", "completions", {"temperature": -0.1}, "temperature"),
    ("B35 temperature 2.1", "completions", {"temperature": 2.1}, "temperature"),
    ("B35 temperature hot", "completions", {"temperature": "hot"}, "temperature"),
    ("temperature true", "completions", {"temperature": True}, "temperature"),
    ("B35 top_p 0", "completions", {"top_p": 0}, "top_p"),
    ("B35 top_p 1.1", "completions", {"top_p": 1.1}, "top_p"),
    ("top_k -2", "completions", {"top_k": -2}, "top_k"),
    ("max_tokens -1", "completions", {"max_tokens": -1}, "max_tokens"),
    ("max_tokens 1.5", "completions", {"max_tokens": 1.5}, "max_tokens"),
    ("max_tokens 10^30", "completions", {"max_tokens": 10**30}, "max_tokens"),
    ("logprobs -1", "completions", {"logprobs": -1}, "logprobs"),
    ("logprobs 21", "completions", {"logprobs": 21}, "logprobs"),
    ("logprobs true", "completions", {"logprobs": True}, "logprobs"),
    ("seed text", "completions", {"seed": "7"}, "seed"),
    ("seed -1", "completions", {"seed": -1}, "seed"),
    ("B37 17 stops", "completions", {"stop": ["x"] * 17}, "stop"),
    ("B37 empty stop", "completions", {"stop": ""}, "stop"),
    ("B37 empty stop in a list", "completions", {"stop": ["x", ""]}, "stop[1]"),
    ("B37 10 kB stop", "completions", {"stop": ["x" * 10_000]}, "stop[0]"),
    ("B37 stop 3", "completions", {"stop": 3}, "stop"),
    ("B38 logit_bias", "completions", {"logit_bias": {"a": 1}}, "logit_bias"),
    ("B38 301 biases", "completions", {"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias"),
    ("B40 stream yes", "completions", {"stream": "yes"}, "stream"),
    ("B40 stream 1", "completions", {"stream": 1}, "stream"),
    ("B40 options without stream", "completions", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("B40 unknown option", "completions", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ("B41 response_format", "completions", {"response_format": {"type": "json_schema"}}, "response_format"),
    ("B41 regex", "completions", {"regex": "a" * 4097}, "regex"),
    ("B43 context + 1", "completions", {"prompt": "a" * 63}, "prompt"),
    ("B43 1 MiB", "completions", {"prompt": "a" * (1024 * 1024 + 1)}, "prompt"),
    ("B43 1 MiB in pieces", "completions", {"prompt": ["a" * 600_000] * 2}, "prompt"),
    ("prompt empty list", "completions", {"prompt": []}, "prompt"),
    ("prompt empty ids", "completions", {"prompt": [[1], []]}, "prompt[1]"),
    ("prompt of both", "completions", {"prompt": ["a", 1]}, "prompt[1]"),
    ("prompt ids of both", "completions", {"prompt": [1, "a"]}, "prompt[1]"),
    ("prompt ids negative", "completions", {"prompt": [1, -1]}, "prompt[1]"),
    ("prompt ids huge", "completions", {"prompt": [2**31]}, "prompt[0]"),
    ("prompt ids of 64 bits", "completions", {"prompt": [2**64]}, "prompt[0]"),
    ("prompt ids true", "completions", {"prompt": [1, True]}, "prompt[1]"),
    ("prompt id rows", "completions", {"prompt": [[1], [2, "a"]]}, "prompt[1][1]"),
    ("prompt null inside", "completions", {"prompt": ["a", None]}, "prompt[1]"),
    ("prompt object", "completions", {"prompt": {"a": 1}}, "prompt"),
    ("prompt number", "completions", {"prompt": 1}, "prompt"),
    ("129 prompts", "completions", {"prompt": ["a"] * 129}, "prompt"),
    ("B62 best_of", "completions", {"best_of": 100}, "best_of"),
    ("B62 suffix", "completions", {"suffix": "x" * 1_000_000}, "suffix"),
    ("B62 prompt_embeds", "completions", {"prompt_embeds": "AAAA"}, "prompt_embeds"),
    ("best_of 21", "completions", {"best_of": 21}, "best_of"),
    ("best_of 0", "completions", {"best_of": 0}, "best_of"),
    ("min_tokens -1", "completions", {"min_tokens": -1}, "min_tokens"),
    ("min_p 1.1", "completions", {"min_p": 1.1}, "min_p"),
    ("min_p -0.1", "completions", {"min_p": -0.1}, "min_p"),
    ("presence_penalty 2.1", "completions", {"presence_penalty": 2.1}, "presence_penalty"),
    ("frequency_penalty -2.1", "completions", {"frequency_penalty": -2.1}, "frequency_penalty"),
    ("frequency_penalty true", "completions", {"frequency_penalty": True}, "frequency_penalty"),
    ("repetition_penalty 0", "completions", {"repetition_penalty": 0}, "repetition_penalty"),
    ("repetition_penalty 1e30", "completions", {"repetition_penalty": 1e30}, "repetition_penalty"),
    ("B38 bias 101", "completions", {"logit_bias": {"1": 101}}, "logit_bias.1"),
    ("B38 bias text", "completions", {"logit_bias": {"1": "1"}}, "logit_bias.1"),
    ("B38 bias of -1", "completions", {"logit_bias": {"-1": 1}}, "logit_bias"),
    ("B38 bias of 01", "completions", {"logit_bias": {"01": 1}}, "logit_bias"),
    ("B38 bias of a superscript", "completions", {"logit_bias": {"\u00b2": 1}}, "logit_bias"),
    ("B38 bias of 2^31", "completions", {"logit_bias": {"2147483648": 1}}, "logit_bias"),
    ("B38 bias list", "completions", {"logit_bias": [[1, 1]]}, "logit_bias"),
    ("stop ids -1", "completions", {"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ("129 stop ids", "completions", {"stop_token_ids": [1] * 129}, "stop_token_ids"),
    ("stop ids 5", "completions", {"stop_token_ids": 5}, "stop_token_ids"),
    ("ignore_eos 1", "completions", {"ignore_eos": 1}, "ignore_eos"),
    ("cache_prompt no", "completions", {"cache_prompt": "no"}, "cache_prompt"),
    ("priority 1001", "completions", {"priority": 1001}, "priority"),
    ("choice empty", "completions", {"choice": []}, "choice"),
    ("choice of nothing", "completions", {"choice": ["a", ""]}, "choice[1]"),
    ("257 choices", "completions", {"choice": ["a"] * 257}, "choice"),
    ("regex empty", "completions", {"regex": ""}, "regex"),
    ("grammar 33 kB", "completions", {"grammar": "a" * 33_000}, "grammar"),
    ("grammar list", "completions", {"grammar": ["a"]}, "grammar"),
    ("B41 format text", "completions", {"response_format": "json"}, "response_format"),
    ("B41 format unknown", "completions", {"response_format": {"type": "xml"}}, "response_format.type"),
    ("B41 format of none", "completions", {"response_format": {}}, "response_format.type"),
    ("B41 two formats", "completions", {"response_format": {"type": "text", "json_schema": NAMED}}, "response_format"),
    ("B41 no schema", "completions", _format(name="a"), "response_format.json_schema.schema"),
    ("B41 no name", "completions", _format(schema={}), "response_format.json_schema.name"),
    ("B41 a bad name", "completions", _format(name="a b", schema={}), "response_format.json_schema.name"),
    ("B41 a list", "completions", _format(name="a", schema=[]), "response_format.json_schema.schema"),
    ("B41 64 kB", "completions", _format(name="a", schema={"enum": ["x" * 66_000]}), "response_format.json_schema.schema"),
    ("B41 deep", "completions", _format(name="a", schema=_deep(33)), "response_format.json_schema.schema"),
    ("B41 deep in tools", "chat/completions", {"tools": [_tool(_deep(33))]}, "tools[0].function.parameters"),
    ("B41 64 kB in tools", "chat/completions", {"tools": [_tool({"enum": ["x" * 66_000]})]}, "tools[0].function.parameters"),
    ("1 MiB of tools", "chat/completions", {"tools": [_tool({"enum": ["x" * 60_000]})] * 20}, "tools"),
    ("1 MiB of messages", "chat/completions", {"messages": [{"role": "user", "content": "x" * 40_000}] * 30}, "messages"),
    ("many ids", "completions", {"prompt": [1] * 262_145}, "prompt"),
    ("many rows of ids", "completions", {"prompt": [[1] * 3000] * 100}, "prompt"),
    ("timeout 0", "completions", {"timeout": 0}, "timeout"),
    ("timeout -1", "completions", {"timeout": -1}, "timeout"),
    ("timeout text", "completions", {"timeout": "1"}, "timeout"),
    ("B64 size 0x0", "images/generations", {"size": "0x0"}, "size"),
    ("B64 size 512", "images/generations", {"size": "512"}, "size"),
    ("B64 n 11", "images/generations", {"n": 11}, "n"),
    ("B64 steps", "images/generations", {"steps": 10**6}, "steps"),
    ("B64 guidance", "images/generations", {"guidance_scale": 0.5}, "guidance_scale"),
    ("B64 url", "images/generations", {"response_format": "url"}, "response_format"),
    ("B55 1025 items", "anomalies", {"input": [{"tensor": {"data": [1]}}] * 1025}, "input"),
    ("B50 a URL", "anomalies", {"input": [{"image": "http://169.254.169.254/"}]}, "input[0].image"),
    ("B50 a file", "anomalies", {"input": [{"image": "file:///etc/passwd"}]}, "input[0].image"),
    ("no base64", "anomalies", {"input": [{"image": "%%%"}]}, "input[0].image"),
    ("empty item", "anomalies", {"input": [{}]}, "input[0]"),
    ("huge shape", "anomalies", {"input": [{"tensor": {"shape": [2**31], "data": [1]}}]}, "input[0].tensor.shape[0]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("route", "fields", "param"), [case[1:] for case in FIELDS], ids=[case[0] for case in FIELDS]
)
async def test_what_is_wrong_with_a_field(
    app: FastAPI, route: str, fields: dict[str, Any], param: str
) -> None:
    body = _dumps({**GOODS[route], **fields})
    error = await judge(app, Exchange(f"/v1/{route}", [body]), 400)
    assert error.param == param
    assert error.type == "invalid_request_error"


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # integers that only Python's own writer writes
        return str(value).replace("'", '"').encode()


@pytest.mark.parametrize(
    "model", ["nobody", "gpt-4o", "org/model", "../admin", "poet:9", "Poet", "<script>", "☃", "x" * 256]
)
async def test_models_that_are_not_here(app: FastAPI, model: str) -> None:
    for route, good in GOODS.items():
        error = await judge(app, Exchange(f"/v1/{route}", [orjson.dumps({**good, "model": model})]), 404)
        assert (error.type, error.code, error.param) == ("not_found_error", "model_not_found", "model")


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate", b"zstd"])
async def test_b13_encodings(app: FastAPI, encoding: bytes) -> None:
    exchange = Exchange(
        "/v1/completions", [b"\x1f\x8b" * 1000], headers=[JSON, (b"content-encoding", encoding)]
    )
    assert (await judge(app, exchange, 415)).code == "unsupported_media_type"
    assert exchange.received == 0


async def test_b14_b26_a_length_over_the_limit(app: FastAPI) -> None:
    headers = [JSON, (b"content-length", b"3000000"), (b"expect", b"100-continue")]
    exchange = Exchange("/v1/completions", [b"x"], headers=headers)
    assert (await judge(app, exchange, 413)).code == "body_too_large"
    assert exchange.received == 0  # a server that waits for the first read sends no 100
    assert exchange.answer_headers["connection"] == "close"


async def test_a_body_over_the_limit_without_a_length(app: FastAPI) -> None:
    exchange = Exchange("/v1/completions", [b" " * 65_536] * 1000)
    await judge(app, exchange, 413)
    assert exchange.received == 33


async def test_b16_a_body_in_tiny_pieces(app: FastAPI) -> None:
    await judge(app, Exchange("/v1/completions", [b" "] * 70_000), 400, seconds=5)


async def test_a_body_that_stops_coming(app: FastAPI) -> None:
    error = await judge(app, Exchange("/v1/completions", [b"{"], more=True), 400)
    assert error.code == "body_too_slow"


async def test_b44_text_that_is_hard_to_tokenize_is_still_text(http: httpx.AsyncClient) -> None:
    for text in (
        "a" * 40,
        "\u0301" * 20,
        "\N{WOMAN}\u200d\N{ROCKET}" * 5,
        "a" * 24 + "!",
        "<|im_end|>system\n",
    ):
        answer = await http.post("/v1/completions", json={**GOOD, "prompt": text})
        assert answer.status_code == 200


async def test_b61_echo_of_nothing_with_probabilities(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/completions", json={**GOOD, "echo": True, "max_tokens": 0, "logprobs": 1})
    assert answer.status_code == 200


async def test_a_client_cannot_make_us_fetch_anything(
    http: httpx.AsyncClient, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    for url in (
        "http://127.0.0.1:1/a.png",
        "https://example.com/a.png",
        "ftp://example.com/a.png",
        "//example.com/a",
    ):
        answer = await http.post("/v1/anomalies", json={**SCORE, "input": [{"image": url}]})
        assert answer.status_code == 400
    assert models.seen == []


async def test_what_a_client_sent_is_not_repeated_at_length(http: httpx.AsyncClient) -> None:
    canary = "my secret prompt"
    for fields in (
        {"prompt": [canary, 1]},
        {"prompt": {"text": canary}},
        {"stop": [canary * 100]},
        {"seed": canary},
    ):
        answer = await http.post("/v1/completions", json={**GOOD, **fields})
        assert answer.status_code == 400
        assert canary not in answer.text


async def test_a_large_good_body_is_good(http: httpx.AsyncClient) -> None:
    raw = base64.b64encode(bytes(4) * 250_000).decode()
    fields = {**SCORE, "input": [{"tensor": {"shape": [250_000], "data": raw}}]}
    assert (await http.post("/v1/anomalies", json=fields)).status_code == 200
