import httpx
import openai
import pytest

from service.openai.schemas.models import ModelCard, ModelList
from tests.service.models import CARDS


async def test_the_list_has_every_model_in_order(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/models")
    listed = ModelList.model_validate_json(answer.content)
    assert [card.id for card in listed.data] == [card.name for card in CARDS]


async def test_a_card_tells_what_a_client_must_know(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/models/mirror")
    ModelCard.model_validate_json(answer.content)
    assert answer.json() == {
        "id": "mirror",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "atelier",
        "task": "reconstruction",
        "family": "vae",
        "capabilities": ["reconstruct", "score", "encode", "decode", "interpolate"],
        "version": "3",
        "description": "A small vae.",
        "licence": "MIT",
        "host": "studio",
        "root": "mirror",
        "parent": None,
        "limits": {"context": 64},
        "quality": {"loss": {"value": 1.5, "higher_is_better": False, "data": "held-out"}},
        "drift": {},
    }
    assert answer.headers["x-model-version"] == "3"


async def test_an_adapter_is_listed_with_its_model(http: httpx.AsyncClient) -> None:
    entry = (await http.get("/v1/models/poet:haiku")).json()
    assert (entry["id"], entry["root"], entry["parent"]) == ("poet:haiku", "poet", "poet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("poet:sonnet", "The model 'poet' has no adapter 'sonnet'; it has haiku, ode."),
        ("poet:", "The model 'poet' has no adapter ''; it has haiku, ode."),
        ("talker:haiku", "The model 'talker' has no adapter 'haiku'; it has none."),
        ("nobody:haiku", "There is no model 'nobody:haiku' here."),
        ("poet:haiku:ode", "The model 'poet' has no adapter 'haiku:ode'; it has haiku, ode."),
    ],
)
async def test_an_adapter_that_is_not_here_is_no_model(
    http: httpx.AsyncClient, name: str, message: str
) -> None:
    answers = [
        await http.get(f"/v1/models/{name}"),
        await http.post("/v1/completions", json={"model": name, "prompt": "ab"}),
        await http.post("/v1/tokenize", json={"model": name, "prompt": "ab"}),
    ]
    for answer in answers:
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error["code"], error["param"], error["message"]) == ("model_not_found", "model", message)


async def test_a_model_that_is_not_here(http: httpx.AsyncClient) -> None:
    for name in ("nobody", "..", "%2e%2e", "%00", "poet%20", "x" * 5000):
        answer = await http.get(f"/v1/models/{name}")
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert error["type"] == "not_found_error"
        assert len(answer.content) < 2048
    assert error["code"] == "model_not_found"


async def test_openais_client_reads_them(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [card.name for card in CARDS]
    assert (await client.models.retrieve("poet")).owned_by == "atelier"
