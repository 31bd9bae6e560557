from typing import Any

import httpx
import pytest

from deployments.errors import BadRequest
from deployments.messages import Chat, Output, Tokenize
from service.openai.schemas.tokens import Detokenized, Tokens
from tests.service.models import Models
from tests.service.openai.text_requests import TOOL
from tests.service.text_models import CONTEXT

ASK = [{"role": "user", "content": "a"}]


async def tokenize(http: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await http.post("/v1/tokenize", json={"model": "hermes", **fields})
    assert answer.status_code == 200, answer.text
    Tokens.model_validate_json(answer.content)
    assert answer.headers["x-model-version"] == "3"
    return answer.json()


async def test_tokens_of_a_text(http: httpx.AsyncClient) -> None:
    assert await tokenize(http, prompt="ab") == {
        "count": 3, "max_model_len": CONTEXT, "tokens": [256, 97, 98],
    }  # fmt: skip
    assert await tokenize(http, prompt="é", add_special_tokens=False, return_token_strs=True) == {
        "count": 2, "max_model_len": CONTEXT, "tokens": [195, 169], "token_strs": ["bytes:\\xc3", "bytes:\\xa9"],
    }  # fmt: skip
    assert (await tokenize(http, prompt="", add_special_tokens=False))["tokens"] == []


async def test_tokens_of_a_conversation(http: httpx.AsyncClient, models: Models) -> None:
    body = await tokenize(
        http, messages=ASK, tools=[TOOL], chat_template_kwargs={"a": 1}, return_token_strs=True
    )
    assert "".join(body["token_strs"]) == "<s>u:a "
    (request,) = models.seen
    assert isinstance(request, Tokenize)
    assert request.prompt == Chat(({"role": "user", "content": "a"},), (TOOL,), {"a": 1})


async def test_there_and_back(http: httpx.AsyncClient) -> None:
    ids = (await tokenize(http, prompt="Größe\x00 ☃"))["tokens"]
    answer = await http.post("/v1/detokenize", json={"model": "hermes", "tokens": ids})
    assert Detokenized.model_validate_json(answer.content).prompt == "Größe\x00 ☃"
    assert (await http.post("/v1/detokenize", json={"model": "hermes", "tokens": []})).json() == {
        "prompt": ""
    }


@pytest.mark.parametrize("model", ["poet", "reader", "critic"])
async def test_every_model_of_text_has_tokens(http: httpx.AsyncClient, model: str) -> None:
    assert (await tokenize(http, model=model, prompt="a"))["count"] == 2


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("tokenize", {}, "prompt"),
        ("tokenize", {"prompt": ["a"]}, "prompt"),
        ("tokenize", {"prompt": [1]}, "prompt"),
        ("tokenize", {"prompt": "a" * 1_048_577}, "prompt"),
        ("tokenize", {"prompt": "a", "messages": ASK}, "messages"),
        ("tokenize", {"prompt": "a", "tools": [TOOL]}, "tools"),
        ("tokenize", {"prompt": "a", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ("tokenize", {"messages": []}, "messages"),
        ("tokenize", {"messages": ASK, "model": "poet"}, "messages"),
        ("tokenize", {"messages": ASK, "model": "talker", "tools": [TOOL]}, "tools"),
        ("tokenize", {"messages": ASK, "add_generation_prompt": True}, "add_generation_prompt"),
        ("tokenize", {"prompt": "a", "model": "mirror"}, "model"),
        ("tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ("detokenize", {}, "tokens"),
        ("detokenize", {"tokens": "a"}, "tokens"),
        ("detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("detokenize", {"tokens": [0, 2**31]}, "tokens[1]"),
        ("detokenize", {"tokens": [1.0]}, "tokens[0]"),
        ("detokenize", {"tokens": [257]}, "tokens"),
        ("detokenize", {"tokens": [1] * 262_145}, "tokens"),
        ("detokenize", {"tokens": [1], "model": "painter"}, "model"),
    ],
)
async def test_what_is_wrong(
    http: httpx.AsyncClient, models: Models, route: str, fields: Any, param: str
) -> None:
    answer = await http.post(f"/v1/{route}", json={"model": "hermes", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_what_the_model_refuses_is_named_as_the_client_knows_it(
    http: httpx.AsyncClient, models: Models
) -> None:
    for fields, param in (({"prompt": "a"}, "prompt"), ({"messages": ASK}, "messages")):
        for said in ("prompt", "prompt[0]"):
            models.failure = BadRequest("No.", param=said)
            answer = await http.post("/v1/tokenize", json={"model": "hermes", **fields})
            assert answer.json()["error"]["param"] == param


async def test_a_model_that_gives_nothing_is_a_fault(
    http: httpx.AsyncClient, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    for outputs in ([], [Output()] * 2):
        monkeypatch.setattr("tests.service.models.text_outputs", lambda _, outputs=outputs: outputs)
        answer = await http.post("/v1/tokenize", json={"model": "hermes", "prompt": "a"})
        assert answer.status_code == 500
