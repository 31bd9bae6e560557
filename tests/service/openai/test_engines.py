"""The same routes over real engines: kilobyte packages, loaded, batched and run."""

import asyncio
import base64
import io
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import orjson
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from deployments.config import HostConfig
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from service.api import create_app
from service.openai.schemas.images import ImageList
from service.openai.schemas.items import AnomalyList, DecodedList, LatentList, ReconstructionList
from service.openai.schemas.latents import CombinedList, TraversedList
from service.openai.schemas.models import ModelList
from service.openai.schemas.text import Completion
from service.settings import Settings
from tests import packages

FLAT = [0.25] * 64
GOOD = {"tensor": {"data": FLAT}}


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, metrics: Metrics) -> Iterator[Studio]:
    store: Path = packages.store(tmp_path_factory.mktemp("store"))
    opened = open_studio(HostConfig(store=str(store), threads=1, slots=8), metrics)
    yield opened
    opened.close()


@pytest.fixture
async def http(studio: Studio, metrics: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(studio, Settings(), metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://atelier") as client:
        yield client


@pytest.fixture
async def client(studio: Studio, metrics: Metrics) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.ASGITransport(create_app(studio, Settings(), metrics))
    async with openai.DefaultAsyncHttpxClient(transport=transport) as speaker:
        yield openai.AsyncOpenAI(base_url="http://atelier/v1", api_key="none", http_client=speaker)


async def post(http: httpx.AsyncClient, route: str, **fields: Any) -> Any:
    answer = await http.post(f"/v1/{route}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(http: httpx.AsyncClient, route: str, **fields: Any) -> tuple[str, str]:
    """Code and place of a refusal; afterwards the model still works."""
    answer = await http.post(f"/v1/{route}", json=fields)
    assert answer.status_code == 400, answer.text
    assert len(answer.content) <= 2048
    await post(http, "anomalies", model="tiny-ae", input=[GOOD])
    error = answer.json()["error"]
    return error["code"], error["param"]


def png(size: tuple[int, int] = (8, 8), level: int = 64, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("L", size, level).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def bomb(width: int, height: int) -> str:
    """A PNG of a few bytes that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )
    return base64.b64encode(body).decode()


async def test_every_kind_of_answer_is_as_documented(http: httpx.AsyncClient) -> None:
    ModelList.model_validate_json((await http.get("/v1/models")).content)
    Completion.model_validate(
        await post(http, "completions", model="tiny-text", prompt="ab", logprobs=5, echo=True)
    )
    ImageList.model_validate(await post(http, "images/generations", model="tiny-gan", prompt="circle", n=2))
    for model in ("tiny-ae", "tiny-vae"):
        items = {"model": model, "input": [GOOD, {"image": png()}]}
        AnomalyList.model_validate(await post(http, "anomalies", **items, **{"return": ["map", "mask"]}))
        parts = {"return": ["error_map", "latent"]}
        ReconstructionList.model_validate(await post(http, "reconstructions", **items, **parts))
        latents = LatentList.model_validate(await post(http, "latents/encode", **items))
        vectors = [entry.latent for entry in latents.data]
        DecodedList.model_validate(await post(http, "latents/decode", model=model, latents=vectors))
        ends = {"from": GOOD, "to": vectors[1]}
        walk = await post(http, "latents/interpolate", model=model, **ends, steps=3, mode="slerp")
        assert len(DecodedList.model_validate(walk).data) == 3
        axis = {"from": GOOD, "axis": 3, "range": [0, 0.5], "steps": 2}
        moved = TraversedList.model_validate(await post(http, "latents/traverse", model=model, **axis))
        assert [entry.value for entry in moved.data] == [0, 0.5]
        groups = [{"input": [GOOD, vectors[1]]}, {"input": [vectors[0]], "weight": -0.5}]
        CombinedList.model_validate(await post(http, "latents/combine", model=model, groups=groups))
        small = LatentList.model_validate(await post(http, "latents/encode", **items, encoding_format="int8"))
        assert small.compressed is not None
        packed = {"model": model, "latents": small.compressed.data}
        found = {"model": model, "latents": [entry.latent for entry in small.data]}
        assert await post(http, "latents/decode", **packed) == await post(http, "latents/decode", **found)


@pytest.mark.parametrize("model", ["tiny-text", "tiny-attention"])
async def test_text_whole_and_in_pieces(http: httpx.AsyncClient, model: str) -> None:
    fields = {"model": model, "prompt": ["ab", "12"], "max_tokens": 5, "temperature": 0, "n": 2}
    whole = await post(http, "completions", **fields)
    assert [choice["text"] for choice in whole["choices"]] == ["cdefg", "cdefg", "34567", "34567"]
    cached = whole["usage"].pop("prompt_tokens_details")["cached_tokens"]
    assert 0 <= cached <= 4
    assert whole["usage"] == {"prompt_tokens": 4, "completion_tokens": 20, "total_tokens": 24}
    streamed = await http.post("/v1/completions", json={**fields, "stream": True})
    texts = ["", "", "", ""]
    for line in streamed.text.split("\n\n")[:-2]:
        for choice in orjson.loads(line.removeprefix("data: "))["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]


async def test_openais_client_over_an_engine(client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(
        model="tiny-text", prompt="ab", max_tokens=4, temperature=0, logprobs=2, echo=True, stop="f"
    )
    (choice,) = completion.choices
    assert (choice.text, choice.finish_reason) == ("abcde", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["a", "b", "c", "d", "e"]
    assert choice.logprobs.text_offset == [0, 1, 2, 3, 4]


async def test_one_seed_one_answer_alone_and_in_company(http: httpx.AsyncClient) -> None:
    async def ask(seed: int) -> Any:
        text = await post(
            http, "completions", model="tiny-text", prompt="ab", max_tokens=20, temperature=2, seed=seed
        )
        drawn = await post(http, "images/generations", model="tiny-gan", prompt="cross", n=2, seed=seed)
        return text["choices"], [entry["b64_json"] for entry in drawn["data"]]

    alone = [await ask(seed) for seed in range(6)]
    together = await asyncio.gather(*map(ask, range(6)))
    assert together == alone
    assert len({str(answer) for answer in alone}) == 6


async def test_pictures_open(http: httpx.AsyncClient) -> None:
    for kind in ("png", "jpeg", "webp"):
        body = await post(
            http, "images/generations", model="tiny-gan", prompt="Square", output_format=kind, size="8x8"
        )
        with Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"]))) as picture:
            assert (picture.format, picture.size) == (kind.upper(), (8, 8))


# -- bad input that only the model can judge -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(bomb(30_000, 30_000), id="B52 a bomb"),
        pytest.param(bomb(1_000_000_000, 1), id="B52 one pixel high"),
        pytest.param(png(kind="TIFF"), id="B53 TIFF"),
        pytest.param(png(kind="ICO"), id="B53 ICO"),
        pytest.param(base64.b64encode(b"8BPS" + bytes(60)).decode(), id="B53 PSD"),
        pytest.param(
            base64.b64encode(b"SIMPLE  =                    T" + bytes(2850)).decode(), id="B53 FITS"
        ),
        pytest.param(base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), id="B53 SVG"),
        pytest.param(base64.b64encode(base64.b64decode(png())[:45]).decode(), id="cut off"),
        pytest.param(base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(), id="a signature alone"),
        pytest.param(base64.b64encode(b"\x00").decode(), id="one byte"),
    ],
)
async def test_what_is_no_picture(http: httpx.AsyncClient, picture: str) -> None:
    began = time.process_time()
    _, param = await refused(http, "anomalies", model="tiny-ae", input=[GOOD, {"image": picture}])
    assert param == "input[1].image"
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([0.5] * 63, id="too few"),
        pytest.param([0.5] * 65, id="too many"),
        pytest.param([], id="none"),
        pytest.param([0.5] * 63 + ["0.5"], id="text"),
        pytest.param([0.5] * 63 + [True], id="a truth"),
        pytest.param([0.5] * 63 + [None], id="null"),
        pytest.param([0.5] * 63 + [{"a": 1}], id="an object"),
        pytest.param([[0.5] * 8] * 7 + [[0.5] * 7], id="ragged"),
        pytest.param([0.5] * 63 + [1e39], id="beyond float32"),
    ],
)
async def test_what_is_no_tensor(http: httpx.AsyncClient, data: Any) -> None:
    _, param = await refused(http, "anomalies", model="tiny-ae", input=[GOOD, {"tensor": {"data": data}}])
    assert param.startswith("input[1].tensor")


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("completions", {"model": "tiny-text", "prompt": "a" * 60}, "prompt"),
        ("completions", {"model": "tiny-text", "prompt": ["a", "b" * 65]}, "prompt[1]"),
        ("completions", {"model": "tiny-text", "prompt": [1, 256]}, "prompt"),
        ("completions", {"model": "tiny-text", "prompt": ["a", ""]}, "prompt[1]"),
        ("completions", {"model": "tiny-ae", "prompt": "a"}, "model"),
        ("images/generations", {"model": "tiny-gan", "prompt": "hexagon"}, "prompt"),
        ("images/generations", {"model": "tiny-gan", "prompt": ""}, "prompt"),
        ("images/generations", {"model": "tiny-gan", "prompt": "circle", "size": "16x16"}, "size"),
        ("images/generations", {"model": "tiny-gan", "prompt": "circle", "size": "99999x99999"}, "size"),
        ("anomalies", {"model": "tiny-ae", "input": [GOOD], "score": "vibes"}, "score"),
        ("anomalies", {"model": "tiny-ae", "input": [GOOD], "calibration": "other"}, "calibration"),
        ("anomalies", {"model": "tiny-ae", "input": [GOOD], "seed": 1}, "seed"),
        ("latents/decode", {"model": "tiny-ae", "latents": [[1, 2, 3, 4, 5, 6, 7]]}, "latents[0]"),
        ("latents/interpolate", {"model": "tiny-ae", "from": [1, 2, 3, 4, 5, 6, 7], "to": GOOD}, "from"),
        ("latents/traverse", {"model": "tiny-ae", "from": GOOD, "axis": 64, "range": [0, 1]}, "axis"),
        ("latents/traverse", {"model": "tiny-ae", "from": GOOD, "axis": 0, "range": [0, 1], "unit": "deviation"}, "unit"),
        ("latents/traverse", {"model": "tiny-ae", "from": {"image": "AAAA"}, "axis": 0, "range": [0, 1]}, "from.image"),
        ("latents/combine", {"model": "tiny-ae", "groups": [{"input": [GOOD]}, {"input": [GOOD, [1]]}]}, "groups[1].input[1]"),
        ("latents/decode", {"model": "tiny-ae", "latents": "AAAAAAAAAAAA"}, "latents"),
        ("latents/encode", {"model": "tiny-ae", "input": [GOOD] * 2 + [{"image": "AAAA"}], "encoding_format": "int8"}, "input[2].image"),
    ],
)  # fmt: skip
async def test_what_the_model_refuses(http: httpx.AsyncClient, route: str, fields: Any, param: str) -> None:
    _, place = await refused(http, route, **fields)
    assert place.startswith(param)


async def test_one_scrape_shows_door_and_engine(http: httpx.AsyncClient) -> None:
    await post(http, "completions", model="tiny-text", prompt="ab", max_tokens=4)
    text = (await http.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all("replica" in sample.labels for family in families.values() for sample in family.samples)
    for name in (
        "atelier_requests",
        "atelier_step_seconds",
        "atelier_completion_tokens",
        "atelier_batch_rows",
    ):
        assert any(sample.value > 0 for sample in families[name].samples)
