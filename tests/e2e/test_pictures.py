"""Pictures made in steps and edited, over real HTTP, through the gateway and directly."""

import base64
import concurrent.futures
import io
import time
from typing import Any

import numpy as np
import openai
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Service

PATHS = ["", "/studio"]


def photo() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def draw(service: Service, path: str = "", route: str = "generations", **fields: Any) -> list[bytes]:
    body = {"model": "tiny-flow", **fields}
    answer = requests.post(f"{service.url}{path}/v1/images/{route}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == "1"
    return [base64.b64decode(entry["b64_json"]) for entry in answer.json()["data"]]


def test_the_same_bytes_by_every_way_and_among_others(service: Service) -> None:
    cases: list[dict[str, Any]] = [
        {"prompt": "circle", "seed": 3, "steps": 12, "guidance_scale": 3.0, "negative_prompt": "cross"},
        {"prompt": "cross", "seed": 3, "n": 3, "solver": "heun"},
        {"seed": 4, "output_format": "webp", "output_compression": 60},
        {"model": "tiny-words", "prompt": "a red door", "seed": 1, "guidance_scale": 2},
    ]
    alone = [draw(service, **case) for case in cases]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(
            pool.map(
                lambda each: draw(service, each[0], **each[1]), [(p, c) for p in PATHS for c in cases * 2]
            )
        )
    assert together == alone * 4


@pytest.mark.parametrize("path", PATHS)
def test_a_file_says_what_made_it(service: Service, path: str) -> None:
    (file,) = draw(service, path, prompt="circle", seed=3, steps=5)
    notes = Image.open(io.BytesIO(file)).info
    assert (notes["model"], notes["version"], notes["seed"], notes["steps"]) == ("tiny-flow", "1", "3", "5")
    assert "trainedAlgorithmicMedia" in str(notes)


@pytest.mark.parametrize("path", PATHS)
def test_the_sdk_draws_streams_and_edits(service: Service, path: str) -> None:
    client = openai.OpenAI(base_url=f"{service.url}{path}/v1", api_key="key", max_retries=0)
    stream = client.images.generate(
        model="tiny-flow",
        prompt="square",
        n=2,
        stream=True,
        partial_images=2,
        extra_body={"steps": 9, "seed": 1},
    )
    events = list(stream)
    assert [event.type.rpartition(".")[2] for event in events].count("completed") == 2
    assert sum(event.type == "image_generation.partial_image" for event in events) == 4
    whole = client.images.generate(
        model="tiny-flow", prompt="square", n=2, extra_body={"steps": 9, "seed": 1}
    )
    finals = {event.b64_json for event in events if event.type == "image_generation.completed"}
    assert {image.b64_json for image in whole.data or ()} == finals

    mask = io.BytesIO()
    Image.fromarray(np.repeat([[0] * 4 + [255] * 4], 8, axis=0).astype(np.uint8)).save(mask, "PNG")
    edited = client.images.edit(
        model="tiny-flow", image=("a.png", photo()), mask=("m.png", mask.getvalue()), prompt="circle"
    )
    made = np.asarray(Image.open(io.BytesIO(base64.b64decode((edited.data or [])[0].b64_json or ""))))
    before = np.asarray(Image.open(io.BytesIO(photo())))
    assert (made[:, :4] == before[:, :4]).all()
    assert (made[:, 4:] != before[:, 4:]).any()
    with pytest.deprecated_call():  # by OpenAI
        varied = client.images.create_variation(model="tiny-flow", image=("a.png", photo()), n=2)
    assert len(varied.data or ()) == 2


@pytest.mark.parametrize("path", PATHS)
def test_tasks_of_an_editor(service: Service, path: str) -> None:
    image = base64.b64encode(photo()).decode()
    (large,) = draw(service, path, "edits", model="tiny-edit", image=image, task="upscale")
    assert Image.open(io.BytesIO(large)).size == (16, 16)


@pytest.mark.parametrize("path", PATHS)
def test_latents_of_a_flow(service: Service, http: requests.Session, path: str) -> None:
    url = f"{service.url}{path}/v1/latents"
    item = {"image": base64.b64encode(photo()).decode()}
    body = {"model": "tiny-flow", "input": [item], "prompt": "cross"}
    latent = http.post(f"{url}/encode", json=body).json()["data"][0]["latent"]
    body = {"model": "tiny-flow", "latents": [latent], "prompt": "cross"}
    made = http.post(f"{url}/decode", json=body).json()["data"][0]["output"]["image"]
    difference = np.asarray(Image.open(io.BytesIO(base64.b64decode(made))), int) - np.asarray(
        Image.open(io.BytesIO(photo())), int
    )
    assert np.abs(difference).max() < 9


def live(service: Service) -> float:
    page = requests.get(f"{service.url}/metrics", timeout=10).text
    families = {family.name: family for family in text_string_to_metric_families(page)}
    samples = families["atelier_live_rows"].samples
    return sum(sample.value for sample in samples if sample.labels["model"] == "tiny-flow")


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_a_stream_frees_its_rows(service: Service, path: str) -> None:
    body = {"model": "tiny-flow", "n": 10, "steps": 64, "stream": True, "partial_images": 3, "solver": "heun"}
    with requests.post(
        f"{service.url}{path}/v1/images/generations", json=body, stream=True, timeout=30
    ) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 10
    while live(service):
        assert time.monotonic() < deadline
        time.sleep(0.1)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("generations", {"steps": 65}, "steps"),
    ("generations", {"guidance_scale": 11}, "guidance_scale"),
    ("generations", {"size": "9x8"}, "size"),
    ("generations", {"background": "transparent"}, "background"),
    ("generations", {"model": "tiny-words", "prompt": "x" * 13}, "prompt"),
    ("edits", {"image": "AAAA"}, "image"),
    ("edits", {"image": base64.b64encode(b"<svg/>").decode()}, "image"),
    ("variations", {"image": base64.b64encode(photo()[:60]).decode()}, "image"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("route", "fields", "param"), BAD)
def test_what_is_refused(service: Service, path: str, route: str, fields: dict[str, Any], param: str) -> None:
    url = f"{service.url}{path}/v1/images/{route}"
    answer = requests.post(url, json={"model": "tiny-flow", **fields}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
