"""Refuse what you do not do: every declared field changes the message or the answer's form, or answers 400."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from deployments.messages import Request
from service.openai.schemas.calibrations import CalibrationRequest
from service.openai.schemas.fields import Body
from service.openai.schemas.images import EditRequest, ImageRequest, VariationRequest
from service.openai.schemas.items import (
    AnomalyRequest,
    DecodeRequest,
    EncodeRequest,
    InputItem,
    InterpolateRequest,
    ReconstructionRequest,
    TensorData,
)
from service.openai.schemas.latents import CombineRequest, LatentGroup, TraverseRequest
from service.openai.schemas.sampling import StreamOptions
from tests.service.models import Models
from tests.service.openai.text_requests import BESIDE, CALLED, TEXT_PARTS, TEXT_REQUESTS

ITEM = {"tensor": {"data": [0.5, 0.5]}}
OTHER = {"tensor": {"data": [0.5, 1.0]}}
IGNORED: dict[str, Any] = {
    "user": "someone",
    "store": True,
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "moderation": "low",
}
CACHE_HINTS = {"safety_identifier", "prompt_cache_key"}  # what SDKs send for text; ignored
SHARED: dict[str, Any] = {"model": "nobody", "timeout": 1.5}
RENDERING: dict[str, Any] = {
    "prompt": "Bag",
    "n": 2,
    "seed": 2,
    "size": "28x28",
    "output_format": "jpeg",
    "output_compression": 5,
    "response_format": "url",
    "stream": True,
    "partial_images": 1,
    "steps": 9,
    "guidance_scale": 2.0,
    "negative_prompt": "Bag",
    "solver": "heun",
    "truncation": 0.7,
    "priority": 3,
    "background": "transparent",
    "quality": "hd",
    "style": "vivid",
}

# For each request: the route, a good body, and another value for each of its own fields.
REQUESTS: list[tuple[type[Body], str, dict[str, Any], dict[str, Any]]] = [
    *TEXT_REQUESTS,
    (
        ImageRequest,
        "images/generations",
        {"model": "painter", "prompt": "Coat", "seed": 1, "output_format": "webp"},
        RENDERING,
    ),
    (
        EditRequest,
        "images/edits",
        {"model": "retoucher", "image": "AAAA", "seed": 1, "output_format": "webp"},
        {
            **RENDERING,
            "image": "AAAB",
            "mask": "AAAA",
            "task": "inpaint",
            "strength": 0.5,
            "input_fidelity": "high",
        },
    ),
    (
        VariationRequest,
        "images/variations",
        {"model": "retoucher", "image": "AAAA", "seed": 1, "output_format": "webp"},
        {**RENDERING, "image": "AAAB", "strength": 0.5},
    ),
    (
        AnomalyRequest,
        "anomalies",
        {"model": "mirror", "input": [ITEM]},
        {
            "input": [OTHER],
            "score": "l1",
            "calibration": "x",
            "threshold": 0.1,
            "false_discovery_rate": 0.1,
            "return": ["steps"],
            "map_format": "tensor",
            "seed": 1,
        },
    ),
    (
        CalibrationRequest,
        "anomalies/calibrations",
        {"model": "mirror", "input": [ITEM]},
        {
            "input": [{"tensor": {"data": [0.25, 0.5]}}],
            "labels": [False],
            "score": "l1",
            "method": "quantile",
            "quantile": 0.5,
            "false_positive_rate": 0.5,
            "default": True,
        },
    ),
    (
        ReconstructionRequest,
        "reconstructions",
        {"model": "mirror", "input": [ITEM]},
        {"input": [OTHER], "return": ["latent"], "samples": 3, "seed": 1},
    ),
    (
        EncodeRequest,
        "latents/encode",
        {"model": "mirror", "input": [ITEM]},
        {"input": [OTHER], "encoding_format": "int8", "prompt": "Bag"},
    ),
    (
        DecodeRequest,
        "latents/decode",
        {"model": "mirror", "latents": [[0.5]]},
        {"latents": [[1.5]], "prompt": "Bag"},
    ),
    (
        InterpolateRequest,
        "latents/interpolate",
        {"model": "mirror", "from": [0.5], "to": [1.5]},
        {"from": [0.0], "to": [0.0], "steps": 3, "mode": "slerp", "prompt": "Bag"},
    ),
    (
        TraverseRequest,
        "latents/traverse",
        {"model": "mirror", "from": [0.5], "axis": 0, "range": [-1, 1]},
        {"from": [0.0], "axis": 1, "range": [0, 1], "steps": 3, "unit": "deviation", "prompt": "Bag"},
    ),
    (
        CombineRequest,
        "latents/combine",
        {"model": "mirror", "groups": [{"input": [[0.5]]}]},
        {"groups": [{"input": [[0.0]]}], "prompt": "Bag"},
    ),
]
PARTS: list[tuple[type[BaseModel], dict[str, Any], dict[str, Any]]] = [
    (
        InputItem,
        ITEM,
        {
            "tensor": OTHER["tensor"],
            "image": "AAAA",
            "features": {"a": 1},
            "series": [1],
            "timestamps": [1],
            "session": "",
        },
    ),
    (TensorData, ITEM["tensor"], {"shape": [1, 2], "dtype": "int8", "data": [1, 2]}),
]


def names(schema: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in schema.model_fields.items()}


def leaves(schema: type[BaseModel]) -> set[type[BaseModel]]:
    return {leaf for below in schema.__subclasses__() for leaf in leaves(below)} or {schema}


def test_the_walk_knows_every_request_and_every_field() -> None:
    assert {schema for schema, *_ in REQUESTS} == leaves(Body)
    assert names(Body) == IGNORED.keys() | SHARED.keys()
    for schema, _, _, others in REQUESTS:
        assert names(schema) == others.keys() | names(Body) | (names(schema) & CACHE_HINTS)
    for part, _, others in PARTS:
        assert names(part) == others.keys()


async def outcome(http: httpx.AsyncClient, models: Models, route: str, body: Any) -> Any:
    """What a request leads to: a refusal naming a field, or a message and the answer."""
    models.seen.clear()
    answer = await http.post(f"/v1/{route}", json=body)
    if answer.status_code in (400, 404):
        return answer.status_code, answer.json()["error"]["param"]
    assert answer.status_code == 200, answer.text
    (request,) = models.seen
    seconds = round(getattr(request, "timeout_seconds", None) or 0)
    return _timeless(request), seconds, answer.headers["content-type"], _lasting(answer)


def _timeless(request: Request) -> Request:
    return replace(request, request_id="", timeout_seconds=None)


def _lasting(answer: httpx.Response) -> Any:
    """What of an answer does not change from one to the next."""
    if answer.headers["content-type"] != "application/json":
        return answer.text.count("data: ")
    fields = answer.json()
    return {name: value for name, value in fields.items() if name not in ("id", "created")}


CASES = [
    (schema, route, good, name, value)
    for schema, route, good, others in REQUESTS
    for name, value in {**SHARED, **others}.items()
]


@pytest.mark.parametrize(
    ("schema", "route", "good", "name", "value"), CASES, ids=[f"{s.__name__}-{n}" for s, _, _, n, _ in CASES]
)
async def test_every_field_is_honoured_or_refused_by_name(
    http: httpx.AsyncClient, models: Models, schema: type[Body], route: str, good: Any, name: str, value: Any
) -> None:
    before = await outcome(http, models, route, good)
    after = await outcome(http, models, route, {**good, name: value})
    assert before[0] not in (400, 404)
    assert after != before
    if after[0] in (400, 404):
        assert after[1] == name


@pytest.mark.parametrize(
    ("route", "good", "fields"), BESIDE, ids=[f"{r}-{'+'.join(f)}" for r, _, f in BESIDE]
)
async def test_fields_that_need_others_change_something_beside_them(
    http: httpx.AsyncClient, models: Models, route: str, good: Any, fields: dict[str, Any]
) -> None:
    models.says = CALLED
    before = await outcome(http, models, route, good)
    for name, value in fields.items():
        after = await outcome(http, models, route, {**good, name: value})
        assert before[0] not in (400, 404)
        assert after[0] not in (400, 404)
        assert after != before


def test_every_part_of_a_text_request_is_walked() -> None:
    assert {part: names(part) for part in TEXT_PARTS} == {
        part: set(others) for part, others in TEXT_PARTS.items()
    }


PART_CASES = [(part, *case) for part, others in TEXT_PARTS.items() for case in others.values()]


@pytest.mark.parametrize(
    ("part", "route", "good", "other", "place"),
    PART_CASES,
    ids=[f"{c[0].__name__}-{c[4]}" for c in PART_CASES],
)
async def test_every_part_is_honoured_or_refused_by_name(
    http: httpx.AsyncClient, models: Models, part: Any, route: str, good: Any, other: Any, place: str
) -> None:
    models.says = CALLED
    before = await outcome(http, models, route, good)
    after = await outcome(http, models, route, other)
    assert before[0] not in (400, 404)
    if place == "":
        assert after == before  # ignored, and documented so
        return
    assert after != before
    if after[0] in (400, 404):
        assert after[1] == place


@pytest.mark.parametrize(
    ("schema", "route", "good", "others"), REQUESTS, ids=[s.__name__ for s, *_ in REQUESTS]
)
async def test_what_sdks_send_and_null_change_nothing(
    http: httpx.AsyncClient, models: Models, schema: type[Body], route: str, good: Any, others: Any
) -> None:
    before = await outcome(http, models, route, good)
    hints = dict.fromkeys(names(schema) & CACHE_HINTS, "one")
    assert await outcome(http, models, route, {**good, **IGNORED, **hints}) == before
    nothing = {name: None for name in {**others, **IGNORED, "timeout": 0} if name not in good}
    assert await outcome(http, models, route, {**good, **nothing}) == before


@pytest.mark.parametrize(
    ("schema", "route", "good", "others"), REQUESTS, ids=[s.__name__ for s, *_ in REQUESTS]
)
async def test_what_is_ignored_has_bounds_all_the_same(
    http: httpx.AsyncClient, models: Models, schema: type[Body], route: str, good: Any, others: Any
) -> None:
    long = "x" * 1_000_000
    before = await outcome(http, models, route, good)
    for name, value in [
        ("moderation", {"model": long}),
        ("moderation", 1),
    ]:
        assert (await outcome(http, models, route, {**good, name: value}))[1].split(".")[0] == name
    assert (
        await outcome(http, models, route, {**good, "moderation": {"model": "m", "policy": None}}) == before
    )
    for name, value in {
        "user": long,
        "metadata": {"a": long},
        "service_tier": long,
        "moderation": long,
        "store": 1,
        **dict.fromkeys(names(schema) & CACHE_HINTS, long),
    }.items():
        status, param = await outcome(http, models, route, {**good, name: value})
        assert (status, param.split(".")[0]) == (400, name)


@pytest.mark.parametrize(
    ("schema", "route", "good", "others"), REQUESTS, ids=[s.__name__ for s, *_ in REQUESTS]
)
async def test_unknown_and_missing_fields(
    http: httpx.AsyncClient, models: Models, schema: type[Body], route: str, good: Any, others: Any
) -> None:
    assert await outcome(http, models, route, {**good, "unheard_of": None}) == (400, "unheard_of")
    for name, field in schema.model_fields.items():
        wire = field.alias or name
        if field.is_required():
            assert await outcome(http, models, route, {**good, wire: None}) == (400, wire)
            without = {key: value for key, value in good.items() if key != wire}
            assert await outcome(http, models, route, without) == (400, wire)


@pytest.mark.parametrize(("part", "good", "others"), PARTS, ids=[part.__name__ for part, *_ in PARTS])
async def test_fields_of_items(
    http: httpx.AsyncClient, models: Models, part: type[BaseModel], good: Any, others: Any
) -> None:
    def wrapped(fields: Any) -> Any:
        return {"model": "mirror", "input": [fields if part is InputItem else {"tensor": fields}]}

    before = await outcome(http, models, "anomalies", wrapped(good))
    for name, value in others.items():
        after = await outcome(http, models, "anomalies", wrapped({**good, name: value}))
        assert after != before
        if after[0] == 400:
            assert after[1].startswith("input[0]")


async def test_fields_of_groups(http: httpx.AsyncClient, models: Models) -> None:
    good = {"input": [[0.5]]}
    others = {"input": [ITEM], "weight": -1.0}
    assert names(LatentGroup) == others.keys()

    def wrapped(group: Any) -> Any:
        return {"model": "mirror", "groups": [group]}

    before = await outcome(http, models, "latents/combine", wrapped(good))
    for name, value in others.items():
        after = await outcome(http, models, "latents/combine", wrapped({**good, name: value}))
        assert after[0] not in (400, 404)
        assert after != before
    assert await outcome(http, models, "latents/combine", wrapped({**good, "weight": None})) == before


def test_options_of_a_stream() -> None:
    assert names(StreamOptions) == {"include_usage", "include_obfuscation"}  # tested with the streams


async def test_obfuscation_is_refused_by_its_place(http: httpx.AsyncClient) -> None:
    fields = {"model": "poet", "prompt": "a", "stream": True, "stream_options": {"include_obfuscation": True}}
    answer = await http.post("/v1/completions", json=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (
        400,
        "stream_options.include_obfuscation",
    )


@pytest.mark.parametrize("name", ["a\x00b", "", "a\nb", "x" * 257, 3, ["poet"], {"name": "poet"}, True])
async def test_what_is_no_name_of_a_model(http: httpx.AsyncClient, name: Any) -> None:
    answer = await http.post("/v1/completions", json={"model": name, "prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
