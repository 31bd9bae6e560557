import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image as Pillow
from prometheus_client import CollectorRegistry

from deployments import studio as studio_module
from deployments.config import HostConfig
from deployments.errors import BadRequest, DeadlineExceeded, ModelFault, ModelNotFound, QueueFull, Unavailable
from deployments.messages import (
    Array,
    Complete,
    Decode,
    Draw,
    Encode,
    ImageItem,
    Interpolate,
    Reconstruct,
    Reply,
    Score,
    TensorItem,
    TextDelta,
    Timings,
    Tokenize,
    Usage,
)
from deployments.metrics import Metrics
from deployments.model import open_model
from deployments.pictures import encode
from model_store.errors import PackageNotFound
from model_store.manifest import Capability
from model_store.package import Package
from model_store.session import Device
from model_store.store import Store
from tests.deployments.conftest import Opened, OpenStudio
from tests.deployments.toys import until

DARK, BRIGHT = TensorItem([0.25] * 64), TensorItem([0.75] * 64)


def picture(value: float) -> ImageItem:
    return ImageItem(encode(np.full((1, 8, 8), value, np.float32)))


def brightness(png: bytes | None) -> float:
    assert png is not None
    return float(np.asarray(Pillow.open(io.BytesIO(png)), np.float32).mean() / 255)


def floats(array: Array | None) -> list[float]:
    assert array is not None
    return [float(value) for value in np.frombuffer(array.data, "<f4")]


# -- one-shot requests -------------------------------------------------------------------------------------------------


async def test_items_are_scored(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae")
    reply = await opened.studio.call(Score("tiny-ae", (DARK, BRIGHT)))
    normal, anomaly = reply.outputs
    assert (normal.score, normal.is_anomaly, normal.p_value) == (0, False, 1)
    assert (anomaly.score, anomaly.is_anomaly, anomaly.threshold) == (0.25, True, 0.095)
    assert (reply.version, reply.calibration, reply.usage) == ("1", "tiny-ae:1", Usage(items=2))
    assert reply.timings.queue >= 0
    assert reply.timings.model > 0
    assert reply.timings.batch == 2
    assert opened.value("items_total", model="tiny-ae") == 2
    assert opened.value("anomaly_score_count", model="tiny-ae", score="l1") == 2
    assert opened.value("anomaly_score_sum", model="tiny-ae", score="l1") == 0.25
    assert opened.value("encode_seconds_count", model="tiny-ae") == 0


async def test_a_score_by_name_with_map_and_mask(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae")
    reply = await opened.studio.call(Score("tiny-ae", (picture(1.0),), score="peak", map=True, mask=True))
    (output,) = reply.outputs
    assert output.score == 0.5
    assert isinstance(output.map, bytes)
    assert Pillow.open(io.BytesIO(output.map)).size == (8, 8)
    assert Pillow.open(io.BytesIO(output.mask or b"")).size == (8, 8)
    assert reply.timings.encode > 0
    assert opened.value("anomaly_score_count", model="tiny-ae", score="peak") == 1
    assert opened.value("encode_seconds_count", model="tiny-ae") == 1


async def test_items_are_reconstructed_in_their_own_kind(open_tiny: OpenStudio) -> None:
    studio = open_tiny("tiny-ae").studio
    reply = await studio.call(Reconstruct("tiny-ae", (BRIGHT, picture(0.75)), latent=True, error_map=True))
    tensor, image = reply.outputs
    assert floats(tensor.array) == floats(tensor.latent) == [0.5] * 64
    assert tensor.array is not None
    assert tensor.array.shape == (1, 8, 8)
    assert tensor.error == 0.25
    assert tensor.image is None
    assert brightness(image.image) == pytest.approx(0.5, abs=0.01)
    assert image.error_map is not None


async def test_a_colour_picture_stays_one(open_tiny: OpenStudio) -> None:
    red = ImageItem(
        encode(np.array([1.0, 0.25, 0.0], np.float32)[:, None, None] * np.ones((3, 8, 8), np.float32))
    )
    (output,) = (await open_tiny("tiny-colour").studio.call(Reconstruct("tiny-colour", (red,)))).outputs
    shown = np.asarray(Pillow.open(io.BytesIO(output.image or b"")))
    assert shown.shape == (8, 8, 3)
    assert shown[0, 0].tolist() == [128, 64, 0]


async def test_a_vae_samples_by_seed(open_tiny: OpenStudio) -> None:
    studio = open_tiny("tiny-vae").studio

    async def sampled(seed: int | None) -> list[float]:
        reply = await studio.call(Reconstruct("tiny-vae", (DARK,), seed=seed))
        return floats(reply.outputs[0].array)

    assert await sampled(None) == [0.25] * 64
    assert await sampled(1) == await sampled(1) != await sampled(2)


async def test_latents_are_found_and_decoded(open_tiny: OpenStudio) -> None:
    studio = open_tiny("tiny-vae").studio
    (code,) = (await studio.call(Encode("tiny-vae", (DARK,)))).outputs
    assert floats(code.latent) == [0.25] * 64
    assert floats(code.spread) == pytest.approx([0.1] * 64)
    reply = await studio.call(Decode("tiny-vae", (floats(code.latent), [1.0] * 64)))
    assert [round(brightness(output.image), 1) for output in reply.outputs] == [0.3, 1.0]
    assert reply.usage == Usage(items=2)


@pytest.mark.parametrize(
    "start", [[0.0] * 64, TensorItem([0.0] * 64), picture(0.0)], ids=["latent", "tensor", "picture"]
)
@pytest.mark.parametrize(
    "end", [[0.5] * 64, TensorItem([0.5] * 64), picture(0.9)], ids=["latent", "tensor", "picture"]
)
async def test_ways_between_latents_and_items(open_tiny: OpenStudio, start: Any, end: Any) -> None:
    opened = open_tiny("tiny-ae")
    request = Interpolate("tiny-ae", start, end, steps=3, timeout_seconds=30)
    reply = await opened.studio.call(request)
    assert [brightness(o.image) for o in reply.outputs] == pytest.approx([0, 0.25, 0.5], abs=0.01)
    assert reply.usage == Usage(items=3)


async def test_both_ends_are_found_in_one_step(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae")
    await opened.studio.call(Interpolate("tiny-ae", DARK, BRIGHT))
    assert opened.value("batch_rows_count", model="tiny-ae", graph="reconstruct") == 1
    assert opened.value("batch_rows_sum", model="tiny-ae", graph="reconstruct") == 2


async def test_pictures_are_drawn(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-gan")
    request = Draw("tiny-gan", "square", n=3, seed=5)
    reply = await opened.studio.call(request)
    shades = [brightness(output.image) for output in reply.outputs]
    assert all(1 / 3 < shade < 2 / 3 for shade in shades)
    assert len(set(shades)) == 3
    assert [output.seed for output in reply.outputs] == [5, 6, 7]
    third = await opened.studio.call(replace(request, n=1, seed=7))
    assert third.outputs[0].image == reply.outputs[2].image
    assert opened.value("images_total", model="tiny-gan") == 4
    assert opened.value("items_total", model="tiny-gan") == 0
    assert opened.value("encode_seconds_count", model="tiny-gan") == 2


async def test_a_vae_draws_without_a_prompt(open_tiny: OpenStudio) -> None:
    reply = await open_tiny("tiny-vae").studio.call(Draw("tiny-vae", n=2))
    assert len({output.image for output in reply.outputs}) == 2


async def test_the_same_seed_draws_the_same_bytes_in_any_batch(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-gan")
    alone = await opened.studio.call(Draw("tiny-gan", "circle", n=2, seed=9))
    with opened.held("tiny-gan"):
        crowd = [
            asyncio.create_task(opened.studio.call(Draw("tiny-gan", "cross", n=4, seed=seed)))
            for seed in range(5)
        ]
        again = asyncio.create_task(opened.studio.call(Draw("tiny-gan", "circle", n=2, seed=9)))
        scheduler = opened.engine("tiny-gan").scheduler
        await until(lambda: len(scheduler.waiting) + len(scheduler.live) == 22)
    assert (await again).outputs == alone.outputs
    assert (await again).timings.batch > 2
    await asyncio.gather(*crowd)


async def test_a_large_request_comes_back_in_order(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae")
    items = tuple(TensorItem([0.5 + i / 2000] * 64) for i in range(1000))
    reply = await opened.studio.call(Score("tiny-ae", items))
    assert [output.score for output in reply.outputs] == pytest.approx(
        [i / 2000 for i in range(1000)], abs=1e-6
    )
    assert opened.value("items_total", model="tiny-ae") == reply.usage.items == 1000
    assert opened.value("batch_rows_sum", model="tiny-ae", graph="reconstruct") == 1000


async def test_numbers_that_overflow_in_the_model_are_the_clients(open_tiny: OpenStudio) -> None:
    studio = open_tiny("tiny-ae").studio
    with pytest.raises(BadRequest) as error:
        await studio.call(Score("tiny-ae", (DARK, TensorItem([3e38] * 64))))
    assert (error.value.code, error.value.param) == ("not_finite", "input[1]")
    assert (await studio.call(Score("tiny-ae", (DARK,)))).outputs[0].score == 0


# -- text --------------------------------------------------------------------------------------------------------------


async def streamed(opened: Opened, request: Complete) -> list[TextDelta]:
    return [delta async for delta in opened.studio.stream(request)]


@pytest.mark.parametrize("name", ["tiny-text", "tiny-attention"])
async def test_text_is_streamed_and_collected_alike(open_tiny: OpenStudio, name: str) -> None:
    opened = open_tiny(name)
    request = Complete(name, ("abc", (120,)), max_tokens=4, n=2, logprobs=1, echo=True, temperature=0.0)
    deltas = await streamed(opened, request)
    whole = await opened.studio.collect(request)
    for row, collected in enumerate(whole):
        own = [delta for delta in deltas if delta.row == row]
        assert "".join(delta.text for delta in own) == collected.text
        assert sum((delta.token_ids for delta in own), ()) == collected.token_ids
        assert sum((delta.logprobs for delta in own), ()) == collected.logprobs
        assert own[-1].finish == collected.finish == "length"
    assert [delta.text for delta in whole] == ["abcdefg", "abcdefg", "xyz{|", "xyz{|"]
    assert deltas[-1].usage == whole[-1].usage == Usage(prompt_tokens=4, completion_tokens=16)
    assert all(delta.usage is None for delta in (*deltas[:-1], *whole[:-1]))
    timings = whole[-1].timings
    assert isinstance(timings, Timings)
    assert timings.first is not None
    assert 0 <= timings.queue <= timings.first
    assert timings.model > 0
    assert 1 <= timings.batch <= 4
    assert {delta.version for delta in whole} == {"1"}


async def test_eight_requests_at_once_share_their_steps(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-text")
    requests = [Complete("tiny-text", (f"{i}",), max_tokens=150, temperature=0.0) for i in range(8)]
    answers = await asyncio.gather(*(opened.studio.collect(request) for request in requests))
    for i, (answer,) in enumerate(answers):
        assert answer.token_ids == tuple(49 + i + k for k in range(150))
    labels = {"model": "tiny-text", "graph": "decode"}
    rows = opened.value("batch_rows_sum", **labels)
    assert rows == 8 * 150
    assert rows / opened.value("batch_rows_count", **labels) > 6


@pytest.mark.parametrize("name", ["loose-text", "loose-attention"])
async def test_the_same_seed_says_the_same_alone_and_in_a_full_batch(
    open_tiny: OpenStudio, name: str
) -> None:
    opened = open_tiny(name, slots=8)
    request = Complete(name, ("to be",), max_tokens=60, seed=42)
    (alone,) = await opened.studio.collect(request)
    others = [Complete(name, ("x" * i,), max_tokens=20 * i, seed=i) for i in range(1, 9)]
    answers = await asyncio.gather(
        *(opened.studio.collect(each) for each in (*others[:4], request, *others[4:]))
    )
    assert (answers[4][0].text, answers[4][0].token_ids) == (alone.text, alone.token_ids)
    different = await opened.studio.collect(Complete(name, ("to be",), max_tokens=60, seed=43))
    assert different[0].token_ids != alone.token_ids


async def test_a_long_prompt_is_tokenized_beside_the_event_loop(open_tiny: OpenStudio) -> None:
    with pytest.raises(BadRequest) as error:
        await open_tiny("tiny-text").studio.collect(Complete("tiny-text", ("x" * 100_000,)))
    assert error.value.code == "context_length_exceeded"


async def test_the_figures_of_text_are_what_the_client_saw(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-text")
    prompt_tokens = completion_tokens = 0
    for request in (
        Complete("tiny-text", ("abc", "de"), n=2, max_tokens=5, temperature=0.0),
        Complete("tiny-text", ("abc",), max_tokens=9, stop=("gh",), temperature=0.0),
        Complete("tiny-text", ("abc",), max_tokens=0, echo=True),
    ):
        usage = (await opened.studio.collect(request))[-1].usage
        assert usage is not None
        prompt_tokens += usage.prompt_tokens
        completion_tokens += usage.completion_tokens
    assert opened.value("prompt_tokens_total", model="tiny-text") == prompt_tokens == 5 + 3 + 3
    assert opened.value("completion_tokens_total", model="tiny-text") == completion_tokens == 20 + 5
    assert opened.value("queue_seconds_count", model="tiny-text") == 6


# -- lookup ------------------------------------------------------------------------------------------------------------

REQUESTS: list[Any] = [
    Score("tiny-ae", (DARK,)),
    Reconstruct("tiny-ae", (DARK,)),
    Encode("tiny-ae", (DARK,)),
    Decode("tiny-ae", ([0.0] * 64,)),
    Interpolate("tiny-ae", [0.0] * 64, [1.0] * 64),
    Draw("tiny-gan", "circle"),
    Complete("tiny-text", ("abc",)),
]
WRONG_MODEL = {Draw: "tiny-ae", Complete: "tiny-gan"}


def ask(opened: Opened, request: Any) -> Awaitable[Any]:
    return opened.studio.collect(request) if isinstance(request, Complete) else opened.studio.call(request)


def changed(request: Any, **fields: Any) -> Any:
    return type(request)(**{name: getattr(request, name) for name in request.__slots__} | fields)


async def test_an_adapter_is_a_model_of_its_own(open_tiny: OpenStudio) -> None:
    opened = open_tiny("adapted-text", "tiny-text")
    cards = await opened.studio.cards()
    assert [(card.name, card.parent) for card in cards] == [
        ("adapted-text", None),
        ("adapted-text:twice", "adapted-text"),
        ("adapted-text:thrice", "adapted-text"),
        ("tiny-text", None),
    ]
    assert [bool(card.quality) for card in cards] == [True, False, False, True]
    answers = await asyncio.gather(
        *(
            opened.studio.collect(Complete(card.name, ("abc",), max_tokens=3, temperature=0.0))
            for card in cards
        )
    )
    assert [row.text for (row,) in answers] == ["def", "egi", "fil", "def"]
    assert opened.value("completion_tokens_total", model="adapted-text") == 9
    reply = await opened.studio.call(Tokenize("adapted-text:twice", "abc"))
    assert reply.outputs[0].token_ids == (97, 98, 99)


@pytest.mark.parametrize("name", ["adapted-text:none", "adapted-text:", "tiny-text:twice", "none:twice"])
async def test_an_adapter_that_is_not_here_is_not_found(open_tiny: OpenStudio, name: str) -> None:
    opened = open_tiny("adapted-text", "tiny-text")
    for request in (Complete(name, ("abc",)), Tokenize(name, "abc")):
        with pytest.raises(ModelNotFound):
            await ask(opened, request)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_a_model_or_version_that_is_not_here_is_not_found(open_tiny: OpenStudio, request_: Any) -> None:
    opened = open_tiny("tiny-ae", "tiny-gan", "tiny-text")
    for fields in ({"model": "none"}, {"version": "2"}):
        with pytest.raises(ModelNotFound) as error:
            await ask(opened, changed(request_, **fields))
        assert error.value.param == "model"
    assert await ask(opened, changed(request_, version="1"))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_a_model_that_cannot_says_what_it_can(open_tiny: OpenStudio, request_: Any) -> None:
    opened = open_tiny("tiny-ae", "tiny-gan", "tiny-text")
    wrong = WRONG_MODEL.get(type(request_), "tiny-text")
    with pytest.raises(BadRequest, match=r"it can \w+") as error:
        await ask(opened, changed(request_, model=wrong))
    assert (error.value.code, error.value.param) == ("task_not_supported", "model")


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_a_package_that_claims_what_it_has_no_graph_for_says_so(tiny: Path, request_: Any) -> None:
    """Text claims to be an autoencoder and to draw; an autoencoder claims to write."""
    other = "tiny-ae" if isinstance(request_, Complete) else "tiny-text"
    opened = Store(str(tiny)).open(other)
    claims = opened.manifest.model_copy(update={"capabilities": get_args(Capability)})
    metrics = Metrics(CollectorRegistry())
    model = open_model(Package(opened.folder, claims), HostConfig(), Device(), metrics)
    studio = studio_module.Studio([model], metrics)
    with pytest.raises(BadRequest) as error:
        await (studio.collect if isinstance(request_, Complete) else studio.call)(
            changed(request_, model=other)
        )
    assert error.value.code == "task_not_supported"
    studio.close()


async def test_text_is_no_one_shot_call(open_tiny: OpenStudio) -> None:
    with pytest.raises(TypeError):
        await open_tiny("tiny-text").studio.call(Complete("tiny-text", ("abc",)))


async def test_cards_of_all_models(open_tiny: OpenStudio) -> None:
    cards = await open_tiny("tiny-ae", "tiny-text", name="atelier").studio.cards()
    assert [(card.name, card.host) for card in cards] == [("tiny-ae", "atelier"), ("tiny-text", "atelier")]


# -- limits and ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_a_deadline_ends_any_request_and_the_next_one_works(
    open_tiny: OpenStudio, request_: Any
) -> None:
    opened = open_tiny("tiny-ae", "tiny-gan", "tiny-text")
    with opened.held(request_.model), pytest.raises(DeadlineExceeded):
        await ask(opened, changed(request_, timeout_seconds=0.002))
    assert await ask(opened, changed(request_, timeout_seconds=30))
    assert opened.value("cancelled_total", model=request_.model) == 0
    await until(lambda: opened.value("live_rows", model=request_.model) == 0)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_a_client_that_leaves_takes_its_rows_with_it(open_tiny: OpenStudio, request_: Any) -> None:
    opened = open_tiny("tiny-ae", "tiny-gan", "tiny-text")
    with opened.held(request_.model):
        asking = asyncio.ensure_future(ask(opened, request_))
        await until(lambda: opened.engine(request_.model).scheduler.live)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert opened.value("cancelled_total", model=request_.model) == 1
    await until(lambda: opened.value("live_rows", model=request_.model) == 0)
    assert await ask(opened, request_)


async def test_leaving_a_stream_cancels_its_rows(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-text")
    deltas = opened.studio.stream(Complete("tiny-text", ("abc",), n=3, max_tokens=150, temperature=0.0))
    assert (await anext(deltas)).text == "d"
    await deltas.aclose()
    assert opened.value("cancelled_total", model="tiny-text") == 1
    await until(lambda: opened.value("live_rows", model="tiny-text") == 0)


async def test_a_stream_read_to_its_end_is_not_cancelled(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-text")
    deltas = opened.studio.stream(Complete("tiny-text", ("abc",), max_tokens=1))
    await anext(deltas)
    await deltas.aclose()
    assert opened.value("cancelled_total", model="tiny-text") == 0


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_a_failing_step_fails_its_request_and_the_next_one_works(
    open_tiny: OpenStudio, request_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_tiny("tiny-ae", "tiny-gan", "tiny-text")

    def fail() -> None:
        raise RuntimeError("the device is gone")

    with opened.before_steps(request_.model, fail), pytest.raises(ModelFault):
        await ask(opened, request_)
    assert await ask(opened, request_)
    assert opened.value("cancelled_total", model=request_.model) == 0
    assert "the device is gone" in caplog.text


async def test_a_full_line_refuses_and_the_next_request_works(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae", max_batch=1, max_waiting=2)
    one = Score("tiny-ae", (DARK,))
    with opened.held("tiny-ae"):
        accepted = [asyncio.create_task(opened.studio.call(one)) for _ in range(3)]
        await until(lambda: len(opened.engine("tiny-ae").scheduler.waiting) == 2)
        with pytest.raises(QueueFull):
            await opened.studio.call(one)
    assert len(await asyncio.gather(*accepted)) == 3
    assert isinstance(await opened.studio.call(one), Reply)


async def test_who_leaves_the_line_makes_room_in_it(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae", max_batch=1, max_waiting=1)
    one = Score("tiny-ae", (DARK,))
    with opened.held("tiny-ae"):
        first, gone = (asyncio.create_task(opened.studio.call(one)) for _ in range(2))
        await until(lambda: opened.value("waiting_rows", model="tiny-ae") == 1)
        gone.cancel()
        await until(gone.done)
        last = asyncio.create_task(opened.studio.call(one))
        await until(lambda: opened.value("waiting_rows", model="tiny-ae") == 1)
    await asyncio.gather(first, last)


async def test_the_whole_way_of_an_interpolation_has_one_deadline(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae")
    pauses = iter([0.03, 0.03])
    with (
        opened.before_steps("tiny-ae", lambda: threading.Event().wait(next(pauses))),
        pytest.raises(DeadlineExceeded),
    ):
        await opened.studio.call(Interpolate("tiny-ae", DARK, BRIGHT, timeout_seconds=0.045))


async def test_health_is_that_of_the_engines(open_tiny: OpenStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_tiny("tiny-ae", "tiny-text")
    assert await opened.studio.ready()
    monkeypatch.setattr(studio_module, "_STUCK_SECONDS", 0.0)
    with opened.held("tiny-ae"):
        asking = asyncio.create_task(opened.studio.call(Score("tiny-ae", (DARK,))))
        await until(lambda: opened.engine("tiny-ae").stuck_seconds() > 0)
        assert not opened.studio.healthy()
    await asking
    monkeypatch.setattr(studio_module, "_STUCK_SECONDS", 60.0)
    assert opened.studio.healthy()
    await asyncio.to_thread(opened.studio.close)
    assert not await opened.studio.ready()


async def test_a_model_that_fails_again_and_again_is_not_healthy(
    open_tiny: OpenStudio, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_tiny("tiny-ae")

    def fail() -> None:
        raise RuntimeError("the device is gone")

    with opened.before_steps("tiny-ae", fail):
        for failures in range(1, 4):
            with pytest.raises(ModelFault):
                await opened.studio.call(Score("tiny-ae", (DARK,)))
            assert opened.studio.healthy() == (failures < 3)
    await opened.studio.call(Score("tiny-ae", (DARK,)))
    await until(opened.studio.healthy)


async def test_closing_leaves_no_thread_and_refuses_what_comes_later(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-ae", "tiny-gan", "tiny-text")
    for request in REQUESTS:
        await ask(opened, request)
    opened.studio.close()
    left = [thread.name for thread in threading.enumerate()]
    assert not [name for name in left if name.startswith(("engine-", "codec"))]
    with pytest.raises(Unavailable):
        await opened.studio.call(Score("tiny-ae", (DARK,)))


async def test_closing_finishes_what_was_accepted(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-text")
    asking = asyncio.create_task(
        opened.studio.collect(Complete("tiny-text", ("0",), max_tokens=150, temperature=0.0))
    )
    await until(lambda: opened.engine("tiny-text").scheduler.live)
    await asyncio.to_thread(opened.studio.close)
    (answer,) = await asking
    assert len(answer.token_ids) == 150


async def test_its_own_figures_are_shown_by_its_own_door(open_tiny: OpenStudio) -> None:
    assert await open_tiny("tiny-ae").studio.expositions() == ()


def test_a_package_that_is_not_in_the_store_is_named(tiny: Path) -> None:
    config = HostConfig(store=str(tiny), models=("tiny-ae", "nobody"))
    with pytest.raises(PackageNotFound, match="nobody"):
        studio_module.open_studio(config, Metrics(CollectorRegistry()))


def test_no_serving_process_imports_a_training_framework() -> None:
    code = (
        "import sys, deployments.studio, deployments.host, service.app\n"
        "print(sorted({'torch', 'onnx', 'onnxscript', 'transformers', 'safetensors', 'hypothesis'} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().splitlines()[-1] == "[]"
