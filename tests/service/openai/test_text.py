import hashlib
import itertools
from typing import Any

import httpx
import orjson
import pytest

from deployments.errors import BadRequest
from deployments.messages import Complete, Grammar
from service.openai.schemas.text import Completion
from tests.service.models import Models


async def complete(http: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await http.post("/v1/completions", json={"model": "poet", "prompt": "ab", "seed": 7, **fields})
    assert answer.status_code == 200, answer.text
    Completion.model_validate_json(answer.content)
    return answer.json()


async def refused(http: httpx.AsyncClient, param: str, **fields: Any) -> Any:
    answer = await http.post("/v1/completions", json={"model": "poet", "prompt": "a", **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    return error


def events(answer: httpx.Response) -> list[Any]:
    *lines, done = [line for line in answer.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    return [orjson.loads(line.removeprefix("data: ")) for line in lines]


async def test_a_completion(http: httpx.AsyncClient, models: Models) -> None:
    answer = await http.post(
        "/v1/completions", json={"model": "poet", "prompt": "ab", "seed": 7, "max_tokens": 3}
    )
    body = answer.json()
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": f"cmpl-{answer.headers['x-request-id']}",
        "object": "text_completion",
        "model": "poet",
        "system_fingerprint": "poet:3",
        "seed": 7,
        "choices": [{"index": 0, "text": "7 8 9 ", "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 3,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["server-timing"].startswith("queue;dur=1.000, model;dur=2.000")


async def test_an_adapter_is_named_behind_its_model(http: httpx.AsyncClient, models: Models) -> None:
    answer = await complete(http, model="poet:haiku")
    assert (answer["model"], answer["system_fingerprint"]) == ("poet:haiku", "poet:haiku:3")
    assert models.completed.model == "poet:haiku"


async def test_defaults_are_openais(http: httpx.AsyncClient, models: Models) -> None:
    await http.post("/v1/completions", json={"model": "poet", "prompt": "ab"})
    request = models.completed
    assert (request.max_tokens, request.n, request.temperature, request.top_p) == (16, 1, 1.0, 1.0)
    assert (request.top_k, request.stop, request.logprobs, request.echo) == (0, (), None, False)
    assert request.timeout_seconds == pytest.approx(600, abs=1)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("ab", ("ab",)),
        ("", ("",)),
        ("a\x00b", ("a\x00b",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
async def test_every_form_of_prompt(
    http: httpx.AsyncClient, models: Models, prompt: Any, prompts: Any
) -> None:
    body = await complete(http, prompt=prompt)
    request = models.completed
    assert request.prompts == prompts
    assert len(body["choices"]) == len(prompts)


async def test_choices_are_numbered_through(http: httpx.AsyncClient) -> None:
    body = await complete(http, prompt=["a", "b"], n=2, max_tokens=1)
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [
        (0, "7 "),
        (1, "8 "),
        (2, "9 "),
        (3, "10 "),
    ]
    assert body["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 4,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


async def test_a_seed_is_drawn_and_reported(http: httpx.AsyncClient, models: Models) -> None:
    drawn = [(await complete(http, seed=None))["seed"] for _ in range(4)]
    assert len(set(drawn)) == 4
    assert [request.seed for request in models.seen if isinstance(request, Complete)] == drawn
    assert all(0 <= seed < 2**32 for seed in drawn)
    again = await complete(http, seed=drawn[0])
    assert again["seed"] == drawn[0]


async def test_echo_without_tokens(http: httpx.AsyncClient) -> None:
    body = await complete(http, echo=True, max_tokens=0, logprobs=1)
    assert body["choices"][0]["text"] == "ab"


async def test_stops_of_both_forms(http: httpx.AsyncClient, models: Models) -> None:
    for stop, stops in (("x", ("x",)), (["x", "yz"], ("x", "yz")), ([], ()), (None, ())):
        await complete(http, stop=stop)
        request = models.completed
        assert request.stop == stops


async def test_top_k_of_minus_one_is_off(http: httpx.AsyncClient, models: Models) -> None:
    for given, sent in ((-1, 0), (0, 0), (5, 5)):
        await complete(http, top_k=given)
        request = models.completed
        assert request.top_k == sent


async def test_logprobs_in_openais_form(http: httpx.AsyncClient) -> None:
    body = await complete(http, max_tokens=2, logprobs=1, echo=True)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["7 ", "8 "],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"alternative0": -0.1, "8 ": -0.5}],
        "text_offset": [2, 0],
    }


async def test_many_logprobs_are_written_beside_the_event_loop(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"n": 2, "logprobs": 20, "max_tokens": 30}
    small = await complete(http, **fields)
    monkeypatch.setattr("service.answers.LARGE", 1)
    assert (await complete(http, **fields))["choices"] == small["choices"]


async def test_logprobs_of_the_tokens_alone(http: httpx.AsyncClient) -> None:
    body = await complete(http, max_tokens=2, logprobs=0)
    assert body["choices"][0]["logprobs"]["top_logprobs"] == [{"7 ": -0.5}, {"8 ": -0.5}]


# -- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_says_the_same_in_pieces(http: httpx.AsyncClient) -> None:
    fields = {"prompt": ["a", "b"], "n": 2, "max_tokens": 3, "logprobs": 2, "echo": True}
    whole = await complete(http, **fields)
    streamed = await http.post("/v1/completions", json={"model": "poet", "seed": 7, "stream": True, **fields})
    chunks = events(streamed)
    for chunk in chunks:
        Completion.model_validate(chunk)
        assert "usage" not in chunk
    for choice in whole["choices"]:
        parts = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["length"]
        tokens = [token for part in parts for token in part["logprobs"]["tokens"]]
        assert tokens == choice["logprobs"]["tokens"]
    assert {(chunk["id"], chunk["seed"]) for chunk in chunks} == {
        (f"cmpl-{streamed.headers['x-request-id']}", 7)
    }
    assert streamed.headers["x-model-version"] == "3"


async def test_the_usage_of_a_stream(http: httpx.AsyncClient) -> None:
    fields = {
        "model": "poet",
        "prompt": "ab",
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    *chunks, last = events(await http.post("/v1/completions", json=fields))
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": None}, {"include_usage": False, "include_obfuscation": False}]
)
async def test_a_stream_without_usage(http: httpx.AsyncClient, options: Any) -> None:
    fields = {"model": "poet", "prompt": "ab", "stream": True, "stream_options": options}
    assert all("usage" not in chunk for chunk in events(await http.post("/v1/completions", json=fields)))


# -- what the model refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("a" * 60, "prompt"),
        ([1] * 60, "prompt"),
        (["a" * 60], "prompt[0]"),
        (["a", "b" * 60], "prompt[1]"),
        ([[1] * 60], "prompt[0]"),
    ],
)
async def test_the_place_of_a_prompt_that_does_not_fit(
    http: httpx.AsyncClient, stream: bool, prompt: Any, param: str
) -> None:
    answer = await http.post("/v1/completions", json={"model": "poet", "prompt": prompt, "stream": stream})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["param"] == param


async def test_exactly_the_context_fits(http: httpx.AsyncClient) -> None:
    await complete(http, prompt="a" * 48, max_tokens=16)


# -- what the text must be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "text"}, "regex": "a+"}, Grammar("regex", "a+")),
        ({"response_format": {"type": "json_object"}}, Grammar("json_object")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "null"}},
                }
            },
            Grammar("json_schema", '{"type":"null"}'),
        ),
        ({"regex": "[0-9]{3}"}, Grammar("regex", "[0-9]{3}")),
        ({"choice": ["ja", "n\u00e9"]}, Grammar("choice", '["ja","n\u00e9"]')),
        ({"grammar": 'start: "a"'}, Grammar("lark", 'start: "a"')),
    ],
)
async def test_one_constraint(http: httpx.AsyncClient, models: Models, fields: Any, grammar: Any) -> None:
    await complete(http, **fields)
    assert models.completed.grammar == grammar


CONSTRAINTS: dict[str, Any] = {
    "response_format": {"type": "json_object"},
    "regex": "a+",
    "choice": ["a"],
    "grammar": 'start: "a"',
}


@pytest.mark.parametrize("pair", list(itertools.combinations(CONSTRAINTS, 2)), ids="-".join)
async def test_never_two_constraints(http: httpx.AsyncClient, pair: tuple[str, str]) -> None:
    await refused(http, pair[1], **{name: CONSTRAINTS[name] for name in pair})


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_the_model_cannot_read_is_named_as_the_client_knows_it(
    http: httpx.AsyncClient, models: Models, name: str
) -> None:
    for stream in (False, True):
        models.failure = BadRequest("Not a grammar.", code="invalid_grammar", param="grammar")
        error = await refused(http, name, stream=stream, **{name: CONSTRAINTS[name]})
        assert error["code"] == "invalid_grammar"


# -- the message ------------------------------------------------------------------------------------------------------


async def test_every_field_arrives(http: httpx.AsyncClient, models: Models) -> None:
    await complete(
        http, max_tokens=9, min_tokens=3, n=2, best_of=4, temperature=0.5, top_k=7, top_p=0.25, min_p=0.125,
        presence_penalty=1.5, frequency_penalty=-1.5, repetition_penalty=1.25, logit_bias={"5": -100, "0": 1.5},
        stop_token_ids=[1, 2], ignore_eos=True, logprobs=20, cache_prompt=False, priority=-3,
    )  # fmt: skip
    sent = models.completed
    assert (sent.max_tokens, sent.min_tokens, sent.n, sent.best_of, sent.rows_each) == (9, 3, 2, 4, 4)
    assert (sent.temperature, sent.top_k, sent.top_p, sent.min_p) == (0.5, 7, 0.25, 0.125)
    assert (sent.presence_penalty, sent.frequency_penalty, sent.repetition_penalty) == (1.5, -1.5, 1.25)
    assert sent.logit_bias == ((5, -100.0), (0, 1.5))
    assert (sent.stop_token_ids, sent.ignore_eos, sent.logprobs) == ((1, 2), True, 20)
    assert (sent.reuse_prefix, sent.priority) == (False, -3)


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer my-key"}, {"api-key": "my-key"}, {"Authorization": "bearer  my-key "}],
)
async def test_who_asks_is_a_digest_of_the_key(
    http: httpx.AsyncClient, models: Models, headers: dict[str, str]
) -> None:
    await http.post("/v1/completions", json={"model": "poet", "prompt": "a"}, headers=headers)
    assert models.completed.principal == hashlib.sha256(b"my-key").hexdigest()[:16]
    await http.post("/v1/completions", json={"model": "poet", "prompt": "a"})
    assert models.completed.principal == ""


# -- contradictions and neutral values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"min_tokens": 4, "max_tokens": 3}, "min_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
    ],
)
async def test_contradictions(http: httpx.AsyncClient, models: Models, fields: Any, param: str) -> None:
    await refused(http, param, **fields)
    assert models.seen == []


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": None},
        {"suffix": ""},
        {"best_of": None},
        {"best_of": 1},
        {"best_of": 2, "n": 2, "stream": True},
        {"min_tokens": 16},
        {"presence_penalty": 0},
        {"frequency_penalty": None},
        {"logit_bias": {}},
        {"response_format": None, "regex": None, "choice": None, "grammar": None},
        {"user": "a", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "moderation": "low"},
        {"safety_identifier": "a", "prompt_cache_key": "b"},
    ],
)
async def test_what_is_accepted(http: httpx.AsyncClient, fields: Any) -> None:
    answer = await http.post("/v1/completions", json={"model": "poet", "prompt": "a", **fields})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "fields",
    [{"suffix": "end"}, {"prompt_embeds": "AAAA"}, {"max_completion_tokens": 5}, {"top_logprobs": 1}],
)
async def test_what_is_not_here_is_unknown(http: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    error = await refused(http, next(iter(fields)), **fields)
    assert error["code"] == "unknown_parameter"
