"""What the terminal shows of a service: a line to paste for each kind of model."""

import json
import shlex
from typing import Any

import pytest

from model_store.seal import seal
from model_store.store import Store
from service.commands.serve import examples, route_of
from tests import packages, records
from tests.edits import editor
from tests.encoders import encoder
from tests.flows import flow

URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = packages.store(tmp_path_factory.mktemp("store"))
    flow(folder)
    flow(folder, name="tiny-words", text=True)
    editor(folder)
    records.table(folder)
    records.series(folder)
    encoder(folder, name="reader")
    encoder(folder, name="critic", classes=("cold", "hot"))
    place = packages.text(folder, name="talker")
    fields = json.loads((place / "model.json").read_bytes())
    fields["capabilities"] += ["chat"]
    fields["text"]["chat"] = {"template": "chat_template.jinja"}
    del fields["files"]
    (place / "chat_template.jinja").write_text("{{ messages[0].content }}")
    seal(place, fields)
    return Store(str(folder))


@pytest.mark.parametrize(
    ("name", "route", "field"),
    [
        ("tiny-text", "/v1/completions", "prompt"),
        ("talker", "/v1/chat/completions", "messages"),
        ("reader", "/v1/embeddings", "input"),
        ("critic", "/v1/classifications", "input"),
        ("tiny-ae", "/v1/anomalies", "input"),
        ("tiny-vae", "/v1/anomalies", "input"),
        ("tiny-table", "/v1/anomalies", "input"),
        ("tiny-series", "/v1/anomalies", "input"),
        ("tiny-gan", "/v1/images/generations", "prompt"),
        ("tiny-flow", "/v1/images/generations", "prompt"),
        ("tiny-words", "/v1/images/generations", "prompt"),
        ("tiny-edit", "/v1/images/edits", "task"),
    ],
)
def test_a_line_for_each_kind_of_model(store: Store, name: str, route: str, field: str) -> None:
    manifest = store.manifest(name)
    assert route_of(manifest) == route
    [line] = examples(URL, {name: manifest})
    words = shlex.split(line)
    assert words[:3] == ["curl", "-s", URL + route]
    body: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    assert body["model"] == name
    assert field in body
    if manifest.text:
        assert body.get("max_tokens", 0) < manifest.text.context


def test_items_of_the_lines_are_read_by_their_models(store: Store) -> None:
    lines = examples(URL, {name: store.manifest(name) for name in ("tiny-table", "tiny-series")})
    table, series = (json.loads(line.split("-d '")[1][:-1])["input"][0] for line in lines)
    assert table == {"features": {"age": 40, "income": 1000, "colour": "red"}}
    assert series == {"series": [0.0, 1.0, 0.0, 9.0]}


def test_numbers_of_the_lines_have_few_digits(store: Store) -> None:
    manifest = store.manifest("tiny-table")
    assert manifest.table is not None
    age, income, _ = manifest.table.features
    age = age.model_copy(update={"mean": 0.3788601756, "deviation": 0.0344})
    income = income.model_copy(update={"mean": 0.00049, "deviation": 1.0, "minimum": 0.00049})
    table = manifest.table.model_copy(update={"features": (age, income)})
    [line] = examples(URL, {"tiny-table": manifest.model_copy(update={"table": table})})
    assert '{"age":0.37886,"income":0.00049}' in line


def test_a_long_window_makes_no_long_line(store: Store) -> None:
    manifest = store.manifest("tiny-series")
    assert manifest.series is not None
    channels = (manifest.series.channels[0].model_copy(update={"mean": 50.0, "deviation": 2.0}),) * 2
    series = manifest.series.model_copy(update={"window": 3072, "channels": channels})
    [line] = examples(URL, {"tiny-series": manifest.model_copy(update={"series": series})})
    steps = json.loads(shlex.split(line)[-1])["input"][0]["series"]
    assert steps == [[50.0, 50.0], [52.0, 52.0]] * 11 + [[50.0, 50.0], [68.0, 68.0]]


def test_a_model_of_which_nothing_can_be_asked_is_listed(store: Store) -> None:
    manifest = store.manifest("tiny-ae").model_copy(update={"capabilities": ("decode",)})
    assert examples(URL, {"tiny-ae": manifest}) == [f"curl -s {URL}/v1/models"]
