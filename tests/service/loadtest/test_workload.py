import orjson
import pytest

from service.loadtest.workload import Task, image, tensors, text


def test_text_takes_its_prompts_in_turn_with_a_seed_of_its_own() -> None:
    workload = text("gpt", ["a", "b"], max_tokens=8, stream=True, seed=100)
    first, second, third = (orjson.loads(workload(number).body) for number in range(3))
    assert (first["prompt"], second["prompt"], third["prompt"]) == ("a", "b", "a")
    assert (first["seed"], second["seed"], third["seed"]) == (100, 101, 102)
    assert first["stream_options"] == {"include_usage": True}
    assert first["max_tokens"] == 8


def test_text_without_a_stream_asks_for_no_stream_options() -> None:
    call = text("gpt", ["a"], max_tokens=8, stream=False, seed=0)(0)
    assert "stream_options" not in orjson.loads(call.body)
    assert not call.stream


def test_images_of_the_classes_in_turn() -> None:
    workload = image("gan", ["Bag", "Coat"], n=3, seed=5)
    body = orjson.loads(workload(1).body)
    assert body == {"model": "gan", "n": 3, "seed": 6, "prompt": "Coat"}
    assert workload(1).path == "/v1/images/generations"


def test_images_in_steps() -> None:
    workload = image("flow", [], n=1, seed=5, steps=[4, 32], guidance=2.0)
    asked = [orjson.loads(workload(number).body) for number in range(3)]
    assert [(each["steps"], each["guidance_scale"]) for each in asked] == [(4, 2.0), (32, 2.0), (4, 2.0)]


def test_images_of_a_model_without_classes() -> None:
    assert "prompt" not in orjson.loads(image("vae", [], n=1, seed=0)(0).body)


@pytest.mark.parametrize(
    ("task", "path"), [(Task.ANOMALY, "/v1/anomalies"), (Task.RECONSTRUCTION, "/v1/reconstructions")]
)
def test_tensors_have_the_shape_and_lie_in_the_unit_interval(task: Task, path: str) -> None:
    call = tensors(task, "ae", [1, 2, 3], items=4, seed=0)(0)
    body = orjson.loads(call.body)
    assert call.path == path
    assert len(body["input"]) == 4
    for item in body["input"]:
        assert item["tensor"]["shape"] == [1, 2, 3]
        rows = item["tensor"]["data"][0]
        assert [len(row) for row in rows] == [3, 3]
        assert all(0 <= value <= 1 for row in rows for value in row)


def test_tensors_differ_between_requests_and_repeat_with_the_seed() -> None:
    one, same, other = (tensors(Task.ANOMALY, "ae", [4], items=1, seed=seed) for seed in (0, 0, 1))
    assert one(0).body == same(0).body
    assert one(0).body != one(1).body
    assert one(0).body != other(0).body
