"""Everything a user does with a running service, over real HTTP, through the gateway and directly."""

import base64
import concurrent.futures
import io
import json
import re
import time

import openai
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Service

PATHS = ["", "/studio"]
GREY = [[[0.5] * 8] * 8]


def test_the_terminal_shows_models_and_lines_to_paste(service: Service) -> None:
    for expected in (
        "tiny-text",
        "tiny-ae",
        "tiny-gan",
        "curl -s",
        f"{service.url}/v1/completions",
        "Press Ctrl-C",
    ):
        assert expected in service.output
    assert "Traceback" not in service.output
    assert "Error" not in service.output


@pytest.mark.parametrize("path", PATHS)
def test_models_are_listed_with_cards(service: Service, http: requests.Session, path: str) -> None:
    listing = http.get(f"{service.url}{path}/v1/models").json()
    names = {entry["id"] for entry in listing["data"]}
    assert {"tiny-text", "tiny-attention", "tiny-ae", "tiny-vae", "tiny-gan"} <= names
    card = http.get(f"{service.url}{path}/v1/models/tiny-ae").json()
    assert card["task"] == "reconstruction"
    assert "score" in card["capabilities"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["tiny-text", "tiny-attention"])
def test_text_is_completed(service: Service, http: requests.Session, path: str, model: str) -> None:
    answer = http.post(
        f"{service.url}{path}/v1/completions",
        json={"model": model, "prompt": "abc", "max_tokens": 5, "temperature": 0},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["choices"][0]["text"] == "defgh"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-request-id"]


def fallback(service: Service) -> str:
    """Ray's own proxy, to which HAProxy turns while it takes the replicas for down."""
    [config] = service.folder.glob("*/h/*/haproxy.cfg")
    found = re.search(r"^ *server \S+ (\S+:\d+) check backup$", config.read_text(), re.MULTILINE)
    assert found is not None
    return f"http://{found[1]}"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("proxied", [False, True])
def test_our_edge_is_in_the_place_of_rays(
    service: Service, http: requests.Session, path: str, proxied: bool
) -> None:
    url = f"{fallback(service) if proxied else service.url}{path}/v1/models"
    answer = http.get(url, headers={"x-request-id": "mine", "x-request-timeout-seconds": "-1"})
    assert len(answer.headers["x-request-id"]) == 32, "one id, made by the server"
    assert answer.headers["x-client-request-id"] == "mine"
    assert "x-client-request-id" not in http.get(url).headers
    assert http.get(url, headers={"x-name": b"\xff"}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_text_is_streamed_with_usage(service: Service, http: requests.Session, path: str) -> None:
    body = {
        "model": "tiny-text",
        "prompt": "abc",
        "max_tokens": 5,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with http.post(f"{service.url}{path}/v1/completions", json=body, stream=True) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in answer.iter_lines(decode_unicode=True) if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"]) == "defgh"
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_same_seed_same_text_on_every_path_and_in_any_company(service: Service) -> None:
    body = {"model": "tiny-attention", "prompt": "seed", "max_tokens": 40, "temperature": 1, "seed": 11}

    def ask(path: str) -> str:
        answer = requests.post(f"{service.url}{path}/v1/completions", json=body, timeout=60)
        text: str = answer.json()["choices"][0]["text"]
        return text

    alone = ask("")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, PATHS * 6))
    assert together == [alone] * 12


@pytest.mark.parametrize("path", PATHS)
def test_pictures_are_drawn_with_their_seed(service: Service, http: requests.Session, path: str) -> None:
    classes = http.get(f"{service.url}/v1/models/tiny-gan").json()["limits"]["classes"]
    body = {"model": "tiny-gan", "prompt": classes[-1], "n": 2, "seed": 3}
    first = http.post(f"{service.url}{path}/v1/images/generations", json=body).json()
    again = http.post(f"{service.url}{path}/v1/images/generations", json=body).json()
    assert [entry["b64_json"] for entry in first["data"]] == [entry["b64_json"] for entry in again["data"]]
    picture = Image.open(io.BytesIO(base64.b64decode(first["data"][0]["b64_json"])))
    assert picture.format == "PNG"
    assert first["data"][0]["seed"] == 3


@pytest.mark.parametrize("path", PATHS)
def test_items_are_scored_and_reconstructed(service: Service, http: requests.Session, path: str) -> None:
    item = {"tensor": {"shape": [1, 8, 8], "dtype": "float32", "data": GREY}}
    body = {"model": "tiny-ae", "input": [item, item], "return": ["map"]}
    scored = http.post(f"{service.url}{path}/v1/anomalies", json=body)
    assert scored.status_code == 200, scored.text
    entries = scored.json()["data"]
    assert [entry["index"] for entry in entries] == [0, 1]
    assert entries[0]["is_anomaly"] in (True, False)
    assert 0 <= entries[0]["normalized"] <= 1
    assert Image.open(io.BytesIO(base64.b64decode(entries[0]["map"]["image"]))).size == (8, 8)
    rebuilt = http.post(f"{service.url}{path}/v1/reconstructions", json={"model": "tiny-ae", "input": [item]})
    assert rebuilt.status_code == 200, rebuilt.text
    assert rebuilt.json()["data"][0]["output"]["tensor"]["shape"] == [1, 8, 8]


@pytest.mark.parametrize("path", PATHS)
def test_latents_go_there_and_back(service: Service, http: requests.Session, path: str) -> None:
    url = f"{service.url}{path}/v1/latents"
    item = {"tensor": {"data": GREY}}
    latent = http.post(f"{url}/encode", json={"model": "tiny-ae", "input": [item]}).json()["data"][0][
        "latent"
    ]
    decoded = http.post(f"{url}/decode", json={"model": "tiny-ae", "latents": [latent]})
    assert decoded.status_code == 200, decoded.text
    way = http.post(
        f"{url}/interpolate", json={"model": "tiny-ae", "from": item, "to": latent, "steps": 3}
    ).json()
    assert [entry["index"] for entry in way["data"]] == [0, 1, 2]
    axis = {"from": item, "axis": 0, "range": [0, 0.5], "steps": 2}
    moved = http.post(f"{url}/traverse", json={"model": "tiny-ae", **axis}).json()
    assert [entry["value"] for entry in moved["data"]] == [0, 0.5]
    groups = [{"input": [item, latent]}, {"input": [latent], "weight": -1}]
    total = http.post(f"{url}/combine", json={"model": "tiny-ae", "groups": groups}).json()
    assert set(total["data"][0]["latent"]) == {0}
    asked = {"model": "tiny-ae", "input": [item], "encoding_format": "int8"}
    small = http.post(f"{url}/encode", json=asked).json()["compressed"]["data"]
    again = http.post(f"{url}/decode", json={"model": "tiny-ae", "latents": small})
    assert again.json()["data"] == decoded.json()["data"]


BAD = [
    ("/v1/completions", b"{", 400, None),
    ("/v1/completions", b'{"model": "tiny-text", "prompt": "a", "temperature": NaN}', 400, None),
    ("/v1/completions", {"model": "nobody", "prompt": "a"}, 404, "model"),
    ("/v1/completions", {"model": "tiny-text", "prompt": "a", "colour": 1}, 400, "colour"),
    ("/v1/completions", {"model": "tiny-text", "prompt": []}, 400, "prompt"),
    ("/v1/completions", {"model": "tiny-text", "prompt": "a", "temperature": 2.1}, 400, "temperature"),
    ("/v1/completions", {"model": "tiny-text", "prompt": "a" * 100_000}, 400, "prompt"),
    ("/v1/completions", {"model": "tiny-ae", "prompt": "a"}, 400, "model"),
    ("/v1/anomalies", {"model": "tiny-ae", "input": [{"image": "AAAA"}]}, 400, "input[0].image"),
    (
        "/v1/anomalies",
        {"model": "tiny-ae", "input": [{"tensor": {"data": [1, 2]}}]},
        400,
        "input[0].tensor.data",
    ),
    ("/v1/images/generations", {"model": "tiny-gan", "prompt": "no such thing"}, 400, "prompt"),
    ("/v1/nothing", {}, 404, None),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("route", "body", "status", "param"), BAD)
def test_bad_input_is_refused_and_the_next_request_works(
    service: Service,
    http: requests.Session,
    path: str,
    route: str,
    body: object,
    status: int,
    param: str | None,
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = http.post(f"{service.url}{path}{route}", data=data, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert error["param"] == param
    assert len(answer.content) <= 2048
    good = {"model": "tiny-text", "prompt": "abc", "max_tokens": 1, "temperature": 0}
    assert http.post(f"{service.url}{path}/v1/completions", json=good).json()["choices"][0]["text"] == "d"


def test_a_large_body_is_refused_before_it_is_read(service: Service, http: requests.Session) -> None:
    answer = http.post(
        f"{service.url}/v1/completions", data=b" " * (9 << 20), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_openai_package_works(service: Service) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        assert "tiny-text" in {model.id for model in client.models.list()}
        text = client.completions.create(model="tiny-text", prompt="abc", max_tokens=3, temperature=0)
        assert text.choices[0].text == "def"
        stream = client.completions.create(
            model="tiny-text", prompt="abc", max_tokens=3, temperature=0, stream=True
        )
        assert "".join(chunk.choices[0].text for chunk in stream) == "def"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="nobody", prompt="abc")


def _samples(text: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") == "tiny-attention":
                sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def test_metrics_are_what_the_client_measured(service: Service, http: requests.Session) -> None:
    before = _samples(http.get(f"{service.url}/metrics").text)
    seconds = 0.0
    for path in PATHS * 5:
        began = time.perf_counter()
        body = {"model": "tiny-attention", "prompt": "abcd", "max_tokens": 7, "temperature": 0}
        http.post(f"{service.url}{path}/v1/completions", json=body)
        seconds += time.perf_counter() - began
    after = _samples(http.get(f"{service.url}/metrics").text)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["atelier_requests_total"] == 10
    assert grown["atelier_prompt_tokens_total"] == 40
    assert grown["atelier_completion_tokens_total"] == 70
    assert grown["atelier_time_to_first_token_seconds_count"] == 10
    assert grown["atelier_inter_token_seconds_count"] == 60
    assert grown["atelier_request_seconds_count"] == 10
    assert 0 < grown["atelier_request_seconds_sum"] < seconds
    assert grown["atelier_queue_seconds_count"] == 10


def test_every_replica_is_named_in_the_metrics(service: Service, http: requests.Session) -> None:
    text = http.get(f"{service.url}/metrics").text
    replicas = {
        sample.labels["replica"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "atelier_model_info"
    }
    assert len(replicas) == 1


@pytest.mark.parametrize("path", PATHS)
def test_health_and_documentation(service: Service, http: requests.Session, path: str) -> None:
    assert http.get(f"{service.url}{path}/healthz").status_code == 200
    assert http.get(f"{service.url}{path}/readyz").status_code == 200
    assert "/v1/completions" in http.get(f"{service.url}{path}/openapi.json").json()["paths"]
    assert http.get(f"{service.url}{path}/docs").status_code == 200


def test_concurrent_streams_share_steps(service: Service) -> None:
    before = _rows(service)

    def ask(number: int) -> int:
        body = {
            "model": "tiny-attention",
            "prompt": "abc",
            "max_tokens": 50,
            "temperature": 1,
            "seed": number,
            "ignore_eos": True,
        }
        answer = requests.post(f"{service.url}/v1/completions", json=body, timeout=60)
        tokens: int = answer.json()["usage"]["completion_tokens"]
        return tokens

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 400
    rows, steps = (after - then for after, then in zip(_rows(service), before, strict=True))
    assert rows == 8 * 50
    assert steps < rows


def _rows(service: Service) -> tuple[float, float]:
    total = count = 0.0
    for family in text_string_to_metric_families(requests.get(f"{service.url}/metrics", timeout=10).text):
        for sample in family.samples:
            if sample.labels.get("model") == "tiny-attention" and sample.labels.get("graph") == "decode":
                total += sample.value if sample.name == "atelier_batch_rows_sum" else 0
                count += sample.value if sample.name == "atelier_batch_rows_count" else 0
    return total, count
