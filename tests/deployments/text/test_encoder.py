import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.errors import BadRequest, DeadlineExceeded, ModelNotFound, QueueFull
from deployments.messages import (
    Array,
    Classify,
    Complete,
    Embed,
    Output,
    Usage,
)
from deployments.metrics import Metrics
from deployments.model import EncoderModel, card_of, open_model
from deployments.rows import Ticket
from deployments.studio import open_studio
from deployments.text.encoder import EncoderProgram, Reading, ReadingRow, partition
from model_store.device import Device
from model_store.package import Package
from model_store.session import open_graph
from model_store.store import Store
from tests.deployments.conftest import Opened
from tests.encoders import WIDTH, encoder, vector

CLASSES = ("cold", "warm", "hot")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    encoder(folder)
    encoder(folder, name="framed", prefix=(1, 2), suffix=(3,))
    encoder(folder, name="judge", classes=CLASSES)
    return folder


@pytest.fixture
def opened(store: Path) -> Iterator[Opened]:
    opened = Opened(store, {})
    yield opened
    opened.studio.close()


def floats(output: Output) -> list[float]:
    array = output.array
    assert isinstance(array, Array)
    values = np.frombuffer(array.data, "<f4")
    assert array.shape == values.shape
    return [float(value) for value in values]


# -- embeddings ---------------------------------------------------------------------------------------------------------


async def test_a_text_becomes_a_vector(opened: Opened) -> None:
    reply = await opened.studio.call(Embed("tiny-encoder", ("hello", "a longer text", (104, 105))))
    assert [floats(output) for output in reply.outputs] == [
        pytest.approx(vector(text), abs=1e-6) for text in (b"hello", b"a longer text", b"hi")
    ]
    assert (reply.version, reply.usage) == ("1", Usage(prompt_tokens=5 + 13 + 2, items=3))
    assert reply.timings.queue >= 0
    assert reply.timings.model > 0
    assert opened.value("prompt_tokens_total", model="tiny-encoder") == 20
    assert opened.value("items_total", model="tiny-encoder") == 3
    assert opened.value("batch_rows_sum", model="tiny-encoder", graph="encode") == 3


async def test_fewer_dimensions_are_the_first_ones_scaled_to_length_one(opened: Opened) -> None:
    whole, short = [
        floats((await opened.studio.call(Embed("tiny-encoder", ("hello",), dimensions=n))).outputs[0])
        for n in (WIDTH, 2)
    ]
    assert whole == pytest.approx(vector(b"hello"), abs=1e-6)
    assert short == pytest.approx(np.array(whole[:2]) / np.linalg.norm(whole[:2]), abs=1e-6)
    assert np.linalg.norm(short) == pytest.approx(1)


@pytest.mark.parametrize("dimensions", [0, -1, WIDTH + 1])
async def test_dimensions_that_the_model_does_not_have_are_refused(opened: Opened, dimensions: int) -> None:
    with pytest.raises(BadRequest, match="4 dimensions") as error:
        await opened.studio.call(Embed("tiny-encoder", ("hello",), dimensions=dimensions))
    assert error.value.param == "dimensions"


async def test_what_the_model_wants_around_a_text_is_put_there_and_counted(opened: Opened) -> None:
    reply = await opened.studio.call(Embed("framed", ("hi", "", (104, 105))))
    framed, empty, tokens = (floats(output) for output in reply.outputs)
    assert framed == pytest.approx(vector(b"\1\2hi\3"), abs=1e-6)
    assert empty == pytest.approx(vector(b"\1\2\3"), abs=1e-6)
    assert tokens == pytest.approx(vector(b"hi"), abs=1e-6)  # ids are taken as they are
    assert reply.usage.prompt_tokens == 5 + 3 + 2


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("x" * 33, "context_length_exceeded", "at most 32 tokens; this text has 33 or more"),
        ("x" * 1_000_000, "context_length_exceeded", "at most 32 tokens"),
        ((1,) * 33, "context_length_exceeded", "at most 32 tokens"),
        ("", "invalid_value", "must not be empty"),
        ((), "invalid_value", "must not be empty"),
        ((256,), "invalid_value", "below 256"),
        ((-1,), "invalid_value", "below 256"),
        ("half \ud800 of it", "invalid_value", "surrogate"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_its_place(
    opened: Opened, text: str | tuple[int, ...], code: str, message: str
) -> None:
    with pytest.raises(BadRequest, match=message) as error:
        await opened.studio.call(Embed("tiny-encoder", ("fine", text)))
    assert (error.value.code, error.value.param) == (code, "input[1]")


async def test_a_text_of_the_whole_context_is_read(opened: Opened) -> None:
    (output,) = (await opened.studio.call(Embed("tiny-encoder", ("y" * 32,)))).outputs
    assert floats(output) == pytest.approx(vector(b"y" * 32), abs=1e-6)
    with pytest.raises(BadRequest):  # two before it and one behind
        await opened.studio.call(Embed("framed", ("y" * 30,)))


async def test_a_vector_that_is_not_finite_is_not_sent(tmp_path: Path) -> None:
    encoder(tmp_path, name="spoilt", scale=1e38)
    spoilt = Opened(tmp_path, {})
    try:
        with pytest.raises(BadRequest) as error:
            await spoilt.studio.call(Embed("spoilt", ("a" * 30,)))
    finally:
        spoilt.studio.close()
    assert (error.value.code, error.value.param) == ("not_finite", "input[0]")


# -- classes ------------------------------------------------------------------------------------------------------------


async def test_classes_come_with_their_probability_best_first(opened: Opened) -> None:
    reply = await opened.studio.call(Classify("judge", ("hello", "a")))
    for output in reply.outputs:
        assert output.classes is not None
        names, probabilities = zip(*output.classes, strict=True)
        assert sorted(names) == sorted(CLASSES)
        assert list(probabilities) == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
    assert reply.usage == Usage(prompt_tokens=6, items=2)


async def test_a_model_is_asked_for_what_it_can_do(opened: Opened) -> None:
    wrong: list[Embed | Classify] = [Embed("judge", ("a",)), Classify("tiny-encoder", ("a",))]
    for request in wrong:
        with pytest.raises(BadRequest) as error:
            await opened.studio.call(request)
        assert (error.value.code, error.value.param) == ("task_not_supported", "model")
    with pytest.raises(BadRequest):
        await opened.studio.collect(Complete("judge", ("a",)))
    with pytest.raises(ModelNotFound):
        await opened.studio.call(Embed("nobody", ("a",)))


# -- loading ------------------------------------------------------------------------------------------------------------


def load(store: Path, name: str, **config: Any) -> EncoderModel:
    package = Store(str(store)).open(name)
    model = open_model(package, HostConfig(**config), Device(), Metrics(CollectorRegistry()))
    assert isinstance(model, EncoderModel)
    return model


def test_the_card_says_what_it_takes_and_gives(store: Path) -> None:
    assert card_of(load(store, "tiny-encoder"), "").limits == {
        "context": 32,
        "vocabulary": 256,
        "dimensions": WIDTH,
    }
    assert card_of(load(store, "judge"), "").limits["classes"] == list(CLASSES)


def test_an_encoder_needs_an_encoder_section(store: Path) -> None:
    package = Store(str(store)).open("judge")
    bare = Package(package.folder, package.manifest.model_copy(update={"encoder": None}))
    with pytest.raises(ValueError, match="no encoder section"):
        EncoderModel(bare, HostConfig(), Device(), Metrics(CollectorRegistry()))


# -- runs ---------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=40).map(sorted),
    st.integers(1, 400),
    st.integers(0, 100),
)
def test_runs_hold_every_row_once_within_the_bound(
    lengths: list[int], run_tokens: int, run_cost: int
) -> None:
    ends = partition(lengths, run_tokens=run_tokens, run_cost=run_cost)
    assert ends[-1] == len(lengths)
    for begin, end in pairwise([0, *ends]):
        assert end > begin
        assert end - begin == 1 or (end - begin) * lengths[end - 1] <= run_tokens


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9).map(sorted), st.integers(0, 60))
def test_no_other_cut_costs_less(lengths: list[int], run_cost: int) -> None:
    def cost(ends: list[int]) -> int:
        return sum((end - begin) * lengths[end - 1] + run_cost for begin, end in pairwise([0, *ends]))

    count = len(lengths)
    every = (
        [end for end in range(1, count) if mask >> end & 1] + [count] for mask in range(0, 1 << count, 2)
    )
    assert cost(partition(lengths, run_tokens=10_000, run_cost=run_cost)) == min(map(cost, every))


def test_like_lengths_run_together() -> None:
    assert partition([5, 5, 6, 200, 210], run_tokens=2048, run_cost=16) == [3, 5]
    assert partition([5, 5, 6, 200, 210], run_tokens=2048, run_cost=2000) == [5]
    assert partition([300, 5000], run_tokens=2048, run_cost=16) == [1, 2]


async def rows_of(*lengths: int, admitted: list[float] | None = None) -> list[ReadingRow]:
    ticket: Ticket[Any] = Ticket(asyncio.get_running_loop(), len(lengths))
    times = admitted or list(range(len(lengths)))
    rows = [ReadingRow(Reading((97,) * n, place), ticket, 0.0) for place, n in enumerate(lengths)]
    for row, time in zip(rows, times, strict=True):
        row.admitted = time
    return rows


def program(store: Path) -> EncoderProgram:
    package = Store(str(store)).open("tiny-encoder")
    session = open_graph(package, "encode", device=Device(), threads=1)
    return EncoderProgram(package.manifest, session, Metrics(CollectorRegistry()), max_batch=8)


async def test_a_step_runs_what_goes_with_the_row_that_waits_longest(store: Path) -> None:
    runs = program(store)
    rows = await rows_of(3, 500, 4, 490, admitted=[2, 1, 3, 4])
    places = []
    while live := [row for row in rows if not row.done]:
        places.append([place for _, (place, _) in runs.step(live)])
    assert places == [[3, 1], [0, 2]]


async def test_a_text_longer_than_a_run_runs_alone(store: Path) -> None:
    runs = program(store)
    rows = await rows_of(3000, 2999)
    assert [place for _, (place, _) in runs.step(rows)] == [0]
    assert [row.done for row in rows] == [True, False]


async def test_rows_that_nobody_waits_for_are_not_run(store: Path) -> None:
    runs = program(store)
    rows = await rows_of(3, 3)
    rows[0].ticket.close()
    assert runs.step(rows) == []


async def test_neighbours_change_a_vector_by_float_noise_at_most(store: Path, opened: Opened) -> None:
    texts = tuple("x" * n for n in range(1, 30))
    together = await opened.studio.call(Embed("tiny-encoder", texts))
    for text, output in zip(texts, together.outputs, strict=True):
        alone = (await opened.studio.call(Embed("tiny-encoder", (text,)))).outputs[0]
        assert floats(output) == pytest.approx(floats(alone), abs=1e-6)


async def test_many_requests_share_runs(store: Path) -> None:
    opened = Opened(store, {"models": ("tiny-encoder",)})
    try:
        with opened.held("tiny-encoder"):
            calls = [
                asyncio.ensure_future(opened.studio.call(Embed("tiny-encoder", ("abcd"[: 1 + i % 4],))))
                for i in range(32)
            ]
            await asyncio.sleep(0.05)
        replies = await asyncio.gather(*calls)
    finally:
        opened.studio.close()
    for i, reply in enumerate(replies):
        assert floats(reply.outputs[0]) == pytest.approx(vector(b"abcd"[: 1 + i % 4]), abs=1e-6)
    assert opened.value("batch_rows_count", model="tiny-encoder", graph="encode") <= 3


async def test_a_full_line_and_a_passed_deadline_are_told(store: Path) -> None:
    opened = Opened(store, {"models": ("tiny-encoder",), "max_batch": 1, "max_waiting": 1})
    try:
        with opened.held("tiny-encoder"):
            waiting = [
                asyncio.ensure_future(opened.studio.call(Embed("tiny-encoder", ("a",)))) for _ in range(2)
            ]
            await asyncio.sleep(0.02)
            with pytest.raises(QueueFull):
                await opened.studio.call(Embed("tiny-encoder", ("a",)))
        await asyncio.gather(*waiting)
        with opened.held("tiny-encoder"), pytest.raises(DeadlineExceeded):
            await opened.studio.call(Embed("tiny-encoder", ("a",), timeout_seconds=0.02))
    finally:
        opened.studio.close()


def test_a_store_with_encoders_opens(store: Path) -> None:
    studio = open_studio(HostConfig(store=str(store), device="cpu"), Metrics(CollectorRegistry()))
    assert studio.healthy()
    studio.close()
