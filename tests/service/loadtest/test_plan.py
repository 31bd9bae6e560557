from dataclasses import replace
from typing import Any

import orjson
import pytest

from service.loadtest.client import open_session
from service.loadtest.plan import LoadTestError, Plan, build, find_model
from service.loadtest.workload import Task
from tests.service.loadtest.known_server import CARDS, Server


async def found(server: Server, task: Task, model: str | None = None) -> dict[str, Any]:
    async with open_session(5, {}) as session:
        return await find_model(session, Plan(server.url, task, model))


@pytest.mark.parametrize(
    ("task", "model"),
    [(Task.TEXT, "gpt"), (Task.IMAGE, "gan"), (Task.ANOMALY, "ae"), (Task.RECONSTRUCTION, "ae")],
)
async def test_the_first_model_that_can_do_the_task(server: Server, task: Task, model: str) -> None:
    assert (await found(server, task))["id"] == model


async def test_the_model_asked_for(server: Server) -> None:
    assert (await found(server, Task.ANOMALY, "shapeless"))["id"] == "shapeless"


async def test_a_model_that_is_not_served(server: Server) -> None:
    with pytest.raises(LoadTestError, match="does not serve 'gtp'; it serves gpt, ae, gan, shapeless"):
        await found(server, Task.TEXT, "gtp")


async def test_a_model_that_cannot(server: Server) -> None:
    with pytest.raises(LoadTestError, match="'gan' cannot do the task 'text'; it can generate_image"):
        await found(server, Task.TEXT, "gan")


async def test_nothing_that_can(server: Server) -> None:
    server.cards = CARDS[:1]
    with pytest.raises(LoadTestError, match=r"No model at .* can do the task 'image'"):
        await found(server, Task.IMAGE)


async def test_a_server_that_lists_nothing_is_believed_about_a_name(server: Server) -> None:
    server.cards = None
    assert await found(server, Task.TEXT, "anything") == {"id": "anything"}
    with pytest.raises(LoadTestError, match="name one with --model"):
        await found(server, Task.TEXT)


async def test_cards_without_capabilities_as_other_servers_have(server: Server) -> None:
    server.cards = [{"id": "llama", "object": "model"}]
    assert (await found(server, Task.TEXT))["id"] == "llama"


async def test_no_server(closed_port: str) -> None:
    async with open_session(5, {}) as session:
        with pytest.raises(LoadTestError, match=r"No server answers at .* `atelier serve`"):
            await find_model(session, Plan(closed_port, Task.TEXT))


def test_prompts_given_replace_those_that_are_drawn() -> None:
    plan = Plan("http://x", Task.TEXT, prompts=("Once",))
    assert orjson.loads(build(plan, CARDS[0])(3).body)["prompt"] == "Once"
    assert orjson.loads(build(replace(plan, prompts=()), CARDS[0])(0).body)["prompt"]


def test_classes_come_from_the_card() -> None:
    workload = build(Plan("http://x", Task.IMAGE), CARDS[2])
    assert [orjson.loads(workload(number).body)["prompt"] for number in range(3)] == ["Bag", "Coat", "Bag"]


def test_shapes_come_from_the_card() -> None:
    body = orjson.loads(build(Plan("http://x", Task.ANOMALY, per_request=2), CARDS[1])(0).body)
    assert [item["tensor"]["shape"] for item in body["input"]] == [[1, 4, 4]] * 2


def test_a_card_without_a_shape() -> None:
    with pytest.raises(LoadTestError, match="does not say what shape"):
        build(Plan("http://x", Task.ANOMALY), CARDS[3])


def test_what_was_asked_is_reported_without_headers() -> None:
    fields = Plan("http://x", Task.TEXT, rate=3.0, headers={"authorization": "secret"}).as_json()
    assert "secret" not in str(fields)
    assert (fields["request_rate"], fields["max_concurrency"], fields["arrivals"]) == (3.0, None, "poisson")
    closed = Plan("http://x", Task.IMAGE, concurrency=4).as_json()
    assert (closed["request_rate"], closed["max_concurrency"], closed["arrivals"]) == ("inf", 4, "closed")
    assert closed["max_tokens"] is None
    assert not closed["stream"]
