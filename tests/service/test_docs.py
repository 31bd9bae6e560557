from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from service.openai.schemas.items import AnomalyRequest
from tests.service.wire import Exchange

ROUTES = {
    ("/v1/models", "get"),
    ("/v1/models/{id}", "get"),
    ("/v1/completions", "post"),
    ("/v1/chat/completions", "post"),
    ("/v1/embeddings", "post"),
    ("/v1/classifications", "post"),
    ("/v1/tokenize", "post"),
    ("/v1/detokenize", "post"),
    ("/v1/images/generations", "post"),
    ("/v1/images/edits", "post"),
    ("/v1/images/variations", "post"),
    ("/v1/reconstructions", "post"),
    ("/v1/anomalies", "post"),
    ("/v1/anomalies/calibrations", "post"),
    ("/v1/anomalies/calibrations", "get"),
    ("/v1/anomalies/calibrations/{id}", "get"),
    ("/v1/anomalies/calibrations/{id}", "delete"),
    ("/v1/anomalies/calibrations/{id}/default", "post"),
    ("/v1/latents/encode", "post"),
    ("/v1/latents/decode", "post"),
    ("/v1/latents/interpolate", "post"),
    ("/v1/latents/traverse", "post"),
    ("/v1/latents/combine", "post"),
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.links += [value for key, value in attrs if key in ("href", "src") and value]
        if given.get("id"):
            self.ids.add(str(given["id"]))


@pytest.fixture
async def schema(http: httpx.AsyncClient) -> Any:
    return (await http.get("/openapi.json")).json()


async def test_every_route_is_documented(schema: Any) -> None:
    assert {(path, method) for path, methods in schema["paths"].items() for method in methods} == ROUTES
    assert all(
        op["description"] and op["responses"]
        for methods in schema["paths"].values()
        for op in methods.values()
    )


async def test_errors_are_documented_with_their_body_and_never_422(schema: Any) -> None:
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"]
            if not path.startswith("/v1"):
                continue
            for status, response in operation["responses"].items():
                if status != "200":
                    body = response["content"]["application/json"]["schema"]
                    assert body == {"$ref": "#/components/schemas/ErrorBody"}


async def test_posts_document_request_and_answer(schema: Any) -> None:
    body = schema["paths"]["/v1/anomalies"]["post"]
    ref = {"$ref": "#/components/schemas/AnomalyRequest"}
    assert body["requestBody"]["content"]["application/json"]["schema"] == ref
    assert body["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/AnomalyList"
    }
    fields = schema["components"]["schemas"]["AnomalyRequest"]
    assert fields["additionalProperties"] is False
    assert set(fields["required"]) == {"model", "input"}
    assert {"return", "score", "threshold", "calibration", "seed"} <= fields["properties"].keys()
    for path in ("/v1/completions", "/v1/chat/completions"):
        assert "text/event-stream" in schema["paths"][path]["post"]["responses"]["200"]["content"]


async def test_the_schema_is_a_schema_and_its_examples_fit(schema: Any) -> None:
    shown = 0
    for name, part in schema["components"]["schemas"].items():
        whole = {**part, "components": schema["components"]}
        Draft202012Validator.check_schema(whole)
        for example in part.get("examples", []):
            Draft202012Validator(whole).validate(example)
            shown += 1
        assert part.get("title") == name
    assert shown == 17


async def test_what_a_request_is_about_comes_first(schema: Any) -> None:
    parts = schema["components"]["schemas"]
    first = {name: list(parts[name]["properties"])[:3] for name in ("CompletionRequest", "ChatRequest")}
    assert first == {
        "CompletionRequest": ["model", "prompt", "max_tokens"],
        "ChatRequest": ["model", "messages", "max_tokens"],
    }
    assert list(parts["ChatRequest"]["properties"])[-1] == "moderation"


async def test_null_is_documented_where_it_is_accepted(schema: Any) -> None:
    validator = Draft202012Validator(
        {**schema["components"]["schemas"]["CompletionRequest"], "components": schema["components"]}
    )
    nothing = {"n": None, "stop": None, "stream_options": {"include_usage": None}, "suffix": None}
    validator.validate({"model": "poet", "prompt": "a", **nothing})
    assert not validator.is_valid({"model": None, "prompt": "a"})
    assert not validator.is_valid({"model": "poet", "prompt": None})


async def test_the_page_loads_nothing_and_links_to_what_is_there(http: httpx.AsyncClient) -> None:
    answer = await http.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    page = Page()
    page.feed(answer.text)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert [link for link in page.links if not link.startswith("#")] == ["/openapi.json"]
    for path, _ in ROUTES:
        assert path in answer.text
    description = AnomalyRequest.model_fields["threshold"].description
    assert description is not None
    assert description.split("'")[0] in answer.text


async def test_under_a_hosts_address_the_page_names_that_address(app: FastAPI) -> None:
    page = await Exchange("/docs", method="GET", root_path="/studio").run(app)
    assert b"/studio/v1/anomalies" in page.body
    assert b"/studio/openapi.json" in page.body
    schema = await Exchange("/openapi.json", method="GET", root_path="/studio").run(app)
    assert schema.json["servers"] == [{"url": "/studio"}]
