import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from prometheus_client import CollectorRegistry

from deployments.engine import Engine
from deployments.errors import StepFailed
from deployments.metrics import Metrics
from deployments.oneshot import Done, OneShot, Result, Task, buckets
from deployments.rows import BACKLOG, Ticket
from model_store.errors import BrokenGraph
from model_store.session import open_graph
from model_store.store import Store
from tests.edits import editor
from tests.graphs import Sketch, build


class Bench:
    """A one-step program and an engine whose steps the test takes."""

    def __init__(self, store: Path, name: str, max_batch: int, rows: int | None = None) -> None:
        package = Store(str(store)).open(name)
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        graphs = {
            key: (graph.model_copy(update={"rows": rows}), open_graph(package, key))
            for key, graph in package.manifest.graphs.items()
        }
        self.engine: Engine[Task, Done] = Engine(
            name, OneShot(name, graphs, metrics, max_batch=max_batch), metrics, max_waiting=2000
        )
        self.name = name

    async def run(self, *requests: list[Task]) -> list[list[Result]]:
        """Submit all, then step until all are answered; results in the order of each request's places."""
        tickets = [self.engine.submit(tasks)[0] for tasks in requests]
        while self.engine.scheduler.waiting or self.engine.scheduler.live:
            self.engine.step()
            await asyncio.sleep(0)
        return [await _results(ticket, len(tasks)) for ticket, tasks in zip(tickets, requests, strict=True)]

    def value(self, name: str, graph: str) -> float:
        labels = {"model": self.name, "graph": graph}
        return self.registry.get_sample_value(f"atelier_{name}", labels) or 0.0


async def _results(ticket: Ticket[Done], count: int) -> list[Result]:
    results: dict[int, Result] = {}
    for _ in range(count):
        place, result = await ticket.next()
        assert place not in results
        results[place] = result
    return [results[place] for place in range(count)]


OpenBench = Callable[..., Bench]


@pytest.fixture
def bench(tiny: Path) -> OpenBench:
    def open_bench(name: str = "tiny-ae", *, max_batch: int = 64) -> Bench:
        return Bench(tiny, name, max_batch)

    return open_bench


def reconstruct(pixels: Any, place: int = 0, *outputs: str) -> Task:
    feeds = {"input": np.broadcast_to(np.float32(pixels), (1, 8, 8))}
    return Task("reconstruct", feeds, outputs or ("reconstruction", "score.l1"), place)


def decode(values: Any, place: int = 0) -> Task:
    return Task("decode", {"latent": np.broadcast_to(np.float32(values), (64,))}, ("output",), place)


# -- buckets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 4, 5]), (16, [1, 2, 3, 4, 6, 8, 12, 16])],
)
def test_buckets(limit: int, sizes: list[int]) -> None:
    assert buckets(limit) == sizes


@given(st.integers(1, 1000))
def test_padding_never_exceeds_a_third_of_a_run(limit: int) -> None:
    sizes = buckets(limit)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == limit
    for rows in range(1, limit + 1):
        size = next(size for size in sizes if size >= rows)
        assert (size - rows) / size <= 1 / 3


# -- runs --------------------------------------------------------------------------------------------------------------


async def test_a_row_gets_the_outputs_it_wants(bench: OpenBench) -> None:
    ((result,),) = await bench().run([reconstruct(0.75, 0, "score.l1", "latent")])
    assert result.keys() == {"score.l1", "latent"}
    assert float(result["score.l1"]) == 0.25
    assert result["latent"].tolist() == [0.5] * 64


async def test_rows_that_wait_together_run_together(bench: OpenBench) -> None:
    model = bench()
    results = await model.run(*[[reconstruct(i / 100)] for i in range(5)])
    assert [round(float(r["reconstruction"][0, 0, 0]), 2) for (r,) in results] == [0, 0.01, 0.02, 0.03, 0.04]
    assert (
        model.value("batch_rows_count", "reconstruct")
        == model.value("step_seconds_count", "reconstruct")
        == 1
    )
    assert model.value("batch_rows_sum", "reconstruct") == 5


async def test_a_large_request_comes_back_in_order(bench: OpenBench) -> None:
    """More rows than slots, and than a reader may leave unread."""
    model = bench(max_batch=48)
    count = 1000
    assert count > BACKLOG
    (results,) = await model.run([reconstruct(i / 2000, i) for i in range(count)])
    assert [float(r["reconstruction"][0, 0, 0]) for r in results] == [
        float(np.float32(i / 2000)) for i in range(count)
    ]
    assert model.value("batch_rows_count", "reconstruct") == 21
    assert model.value("batch_rows_sum", "reconstruct") == count


async def test_graphs_may_be_mixed_in_a_step(bench: OpenBench) -> None:
    model = bench()
    first, second = await model.run(
        [reconstruct(0.25), decode(0.5, 1)], [decode(0.75), reconstruct(0.125, 1)]
    )
    assert float(first[0]["reconstruction"].mean()) == 0.25
    assert float(first[1]["output"].mean()) == 0.5
    assert float(second[0]["output"].mean()) == 0.75
    assert float(second[1]["reconstruction"].mean()) == 0.125
    assert model.value("batch_rows_sum", "reconstruct") == model.value("batch_rows_sum", "decode") == 2
    assert model.value("batch_rows_count", "reconstruct") == model.value("batch_rows_count", "decode") == 1


@pytest.mark.parametrize("neighbours", [1, 2, 4, 6, 15])
async def test_the_same_bytes_alone_and_among_neighbours(bench: OpenBench, neighbours: int) -> None:
    """Whatever an earlier run left in the bucket's padding."""
    chance = np.random.default_rng(neighbours)
    tasks = [reconstruct(chance.random((1, 8, 8), np.float32)) for _ in range(neighbours + 1)]
    shared, fresh = bench(max_batch=16), bench(max_batch=16)
    await shared.run(*[[reconstruct(1e30)] for _ in range(16)])
    together = await shared.run(*[[task] for task in tasks])
    for task, (result,) in zip(tasks, together, strict=True):
        ((alone,),) = await fresh.run([task])
        assert {role: array.tobytes() for role, array in alone.items()} == {
            role: array.tobytes() for role, array in result.items()
        }


async def test_a_result_is_not_written_over_by_the_next_run(bench: OpenBench) -> None:
    model = bench()
    ((first,),) = await model.run([reconstruct(0.25)])
    await model.run([reconstruct(0.5)])
    assert float(first["reconstruction"].mean()) == 0.25


async def test_whole_numbers_are_bound_as_such(bench: OpenBench) -> None:
    tasks = [
        Task("generate", {"class_id": np.int64(i), "noise": np.zeros(4, np.float32)}, ("output",), i)  # type: ignore[dict-item]
        for i in range(3)
    ]
    (results,) = await bench("tiny-gan").run(tasks)
    assert [float(r["output"].mean()) for r in results] == pytest.approx([0.5 / 3, 1.5 / 3, 2.5 / 3])


def doubled(value: float, then: int, place: int = 0) -> Task:
    """Through `decode` once, and `then` more times, each with twice as much."""

    def follow(result: Result) -> Task:
        return doubled(2 * float(result["output"].mean()), then - 1, place)

    return replace(decode(value, place), then=follow if then else None)


async def test_a_row_goes_on_to_its_next_task(bench: OpenBench) -> None:
    model = bench()
    first, second = await model.run([doubled(0.1, 2), decode(0.25, 1)], [doubled(0.125, 1)])
    assert [round(float(each["output"].mean()), 6) for each in (*first, *second)] == [0.4, 0.25, 0.25]
    assert model.value("batch_rows_count", "decode") == 3
    assert model.value("batch_rows_sum", "decode") == 3 + 2 + 1


async def test_a_row_that_goes_on_in_a_later_graph_is_done_in_one_step(bench: OpenBench) -> None:
    model = bench()
    both = replace(reconstruct(0.75), then=lambda result: decode(float(result["score.l1"])))
    ((result,),) = await model.run([both])
    assert float(result["output"].mean()) == 0.25
    assert model.value("batch_rows_sum", "reconstruct") == model.value("batch_rows_sum", "decode") == 1


async def test_cancelled_rows_are_not_run(bench: OpenBench) -> None:
    model = bench()
    gone, _ = model.engine.submit([reconstruct(0.5)])
    gone.closed = True
    await model.run([reconstruct(0.25)])
    assert model.value("batch_rows_sum", "reconstruct") == 1


async def test_nothing_waits_for_others_to_come(tiny: Path) -> None:
    """A lone row runs as soon as the device is free: one step of a running engine, far below any batching timer."""
    model = Bench(tiny, "tiny-ae", 64)
    model.engine.start()
    try:
        for _ in range(3):
            ticket, rows = model.engine.submit([reconstruct(0.5)])
            async with asyncio.timeout(5):
                await ticket.next()
            assert rows[0].shared == rows[0].steps == 1
        assert model.value("batch_rows_count", "reconstruct") == 3
    finally:
        model.engine.stop()


async def test_rows_of_like_shapes_share_a_run(tmp_path: Path) -> None:
    editor(tmp_path)
    bench = Bench(tmp_path, "tiny-edit", 8)

    def task(height: int, width: int) -> Task:
        picture = np.full((3, height, width), height / 100 + width / 1000, np.float32)
        feeds = {"input": picture, "task": np.array(0), "mask": np.zeros((1, height, width), np.float32)}
        return Task("edit", feeds, ("output",))

    sizes = [(8, 8), (4, 6), (8, 8), (4, 6), (6, 4)]
    answers = await bench.run(*([task(*size)] for size in sizes))
    for size, ((answer),) in zip(sizes, answers, strict=True):
        assert (answer["output"] == task(*size).feeds["input"]).all()
    assert (bench.value("batch_rows_count", "edit"), bench.value("batch_rows_sum", "edit")) == (3, 5)


@pytest.mark.parametrize(("side", "together"), [(8, True), (32, False)])
async def test_only_small_rows_are_kept_by_their_neighbours(
    tmp_path: Path, side: int, together: bool
) -> None:
    editor(tmp_path)
    feeds = {
        "input": np.full((3, side, side), 0.5, np.float32),
        "task": np.array(0),
        "mask": np.zeros((1, side, side), np.float32),
    }
    row = [Task("edit", feeds, ("output",))]
    (one,), (other,) = await Bench(tmp_path, "tiny-edit", 8).run(row, row)
    assert (one["output"].base is not None) is together
    assert one["output"].base is other["output"].base
    assert (one["output"] == other["output"]).all()


async def test_memory_of_few_shapes_is_kept(tmp_path: Path) -> None:
    editor(tmp_path)
    bench = Bench(tmp_path, "tiny-edit", 1)
    for side in range(1, 30):
        picture = np.zeros((3, side, 8), np.float32)
        feeds = {"input": picture, "task": np.array(0), "mask": np.zeros((1, side, 8), np.float32)}
        await bench.run([Task("edit", feeds, ("output",))])
    program = bench.engine.program
    assert isinstance(program, OneShot)
    assert len(program._graphs["edit"]._bound) == 16


async def test_large_rows_that_vary_in_shape_run_few_at_a_time(tmp_path: Path) -> None:
    editor(tmp_path)
    bench = Bench(tmp_path, "tiny-edit", 64)
    size = (900, 500)  # of 4,194,304 numbers: 3
    feeds = {
        "input": np.zeros((3, *size), np.float32),
        "task": np.array(0),
        "mask": np.zeros((1, *size), np.float32),
    }
    (answers,) = await bench.run([Task("edit", feeds, ("output",), place) for place in range(5)])
    assert [each["output"].shape for each in answers] == [(3, *size)] * 5
    assert bench.value("batch_rows_count", "edit") == 2


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Bench]:
    """A model that fails for rows other than [0] and [1]."""
    sketch = Sketch()
    place = sketch("Cast", sketch.input("input", "float32", "batch", 1), to=TensorProto.INT64)
    sketch("Gather", sketch.constant([2, 3], "float32"), place, into=["latent"])
    sketch.output("latent", "float32", "batch", 1)
    fields = {"task": "reconstruction", "family": "autoencoder", "capabilities": ["encode"]}
    build(tmp_path, "fragile", "1", fields, {"encode": (sketch, {"input": np.zeros((2, 1), np.float32)})})
    bench = Bench(tmp_path, "fragile", 64)
    yield bench
    bench.engine.stop()


@pytest.mark.parametrize("bad", [{0}, {6}, {2, 3, 6}, set(range(7))])
async def test_a_row_that_fails_takes_no_others_with_it(fragile: Bench, bad: set[int]) -> None:
    tasks = [
        Task("encode", {"input": np.array([9 if k in bad else k % 2], np.float32)}, ("latent",))
        for k in range(7)
    ]
    tickets = [fragile.engine.submit([task])[0] for task in tasks]
    fragile.engine.start()
    for place, ticket in enumerate(tickets):
        if place in bad:
            with pytest.raises(StepFailed):
                await ticket.next()
        else:
            assert float((await ticket.next())[1]["latent"][0]) == 2 + place % 2


async def test_a_graph_may_take_a_few_rows_at_a_time(tiny: Path) -> None:
    model = Bench(tiny, "tiny-ae", 16, rows=3)
    whole = [decode(k / 8, k) for k in range(8)]
    [found] = await model.run(whole)
    [expected] = await Bench(tiny, "tiny-ae", 16).run(whole)
    assert all(np.array_equal(a["output"], b["output"]) for a, b in zip(found, expected, strict=True))
    assert model.value("batch_rows_count", "decode") == 3
    assert model.value("batch_rows_sum", "decode") == 8


def test_an_output_that_varies_by_itself_is_refused_when_it_is_loaded(tiny: Path) -> None:
    package = Store(str(tiny)).open("tiny-ae")
    graph = package.manifest.graphs["decode"]
    session = open_graph(package, "decode")
    varying = graph.model_copy(
        update={"outputs": tuple(t.model_copy(update={"shape": ("batch", "length")}) for t in graph.outputs)}
    )
    with pytest.raises(BrokenGraph, match="no input has the size 'length'"):
        OneShot("m", {"decode": (varying, session)}, Metrics(CollectorRegistry()), max_batch=4)
