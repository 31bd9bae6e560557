"""Pictures made in steps, from a request to encoded files."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.errors import BadRequest, DeadlineExceeded
from deployments.messages import Decode, Draw, Encode, ImageItem, Interpolate, Picture, Source, TensorItem
from deployments.metrics import Metrics
from deployments.randomness import noise
from deployments.studio import Studio, open_studio
from tests.deployments.toys import until
from tests.flows import store


class Opened:
    def __init__(self, store: Path, **config: Any) -> None:
        self.registry = CollectorRegistry()
        self.studio: Studio = open_studio(
            HostConfig(store=str(store), device="cpu", **config), Metrics(self.registry)
        )

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"atelier_{name}", labels) or 0.0

    async def draw(self, model: str = "tiny-flow", prompt: str = "circle", **asked: Any) -> list[bytes]:
        reply = await self.studio.call(Draw(model, prompt, **asked))
        assert all(output.image for output in reply.outputs)
        return [output.image or b"" for output in reply.outputs]

    async def stream(self, **asked: Any) -> list[Picture]:
        return [each async for each in self.studio.pictures(Draw("tiny-flow", "circle", **asked))]


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("flows"))


@pytest.fixture(scope="module")
def opened(flows: Path) -> Iterator[Opened]:
    opened = Opened(flows)
    yield opened
    opened.studio.close()


def pixels(picture: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture)), np.float32) / 255


def png(values: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray((values * 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


PHOTO = png(np.random.default_rng(5).random((8, 8, 3)))


# -- drawing --------------------------------------------------------------------------------------------------------------


async def test_each_picture_has_a_seed_of_its_own(opened: Opened) -> None:
    reply = await opened.studio.call(Draw("tiny-flow", "circle", n=3, seed=2**63 - 2))
    assert [(output.seed, output.steps) for output in reply.outputs] == [
        (2**63 - 2, 4),
        (2**63 - 1, 4),
        (0, 4),
    ]
    assert (reply.version, reply.usage.items) == ("1", 3)
    assert len({output.image for output in reply.outputs}) == 3
    assert await opened.draw(seed=0) == [reply.outputs[2].image]


async def test_the_same_bytes_among_others(opened: Opened) -> None:
    asked: list[dict[str, Any]] = [
        {"seed": 1, "steps": 3},
        {"seed": 1, "steps": 9, "guidance": 3.0, "prompt": "cross"},
        {"seed": 1, "solver": "heun", "n": 2},
        {"seed": 4, "guidance": 2.0, "negative": "square"},
        {"seed": 5, "prompt": "", "steps": 16},
    ]
    alone = [await opened.draw(**each) for each in asked]
    together = await asyncio.gather(*(opened.draw(**each) for each in asked * 3))
    assert together == alone * 3
    assert len({image for images in alone for image in images}) == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "cross"},
        {"prompt": ""},
        {"seed": 1},
        {"steps": 5},
        {"guidance": 2.0},
        {"guidance": 4.0, "negative": "cross"},
        {"solver": "heun"},
        {"format": "webp"},
        {"format": "jpeg", "quality": 20},
    ],
)
async def test_every_field_changes_the_picture(opened: Opened, changed: dict[str, Any]) -> None:
    base = {"guidance": 4.0, "seed": 0} if "negative" in changed else {"seed": 0}
    assert await opened.draw(**base) != await opened.draw(**{**base, **changed})


async def test_words(opened: Opened) -> None:
    reply = await opened.studio.call(Draw("text-flow", "a door", guidance=3.0, negative="blue"))
    assert reply.usage.prompt_tokens == len("a door") + len("blue")
    plain = await opened.draw("text-flow", "a door", guidance=3.0)
    assert [reply.outputs[0].image] != plain


async def test_sizes(opened: Opened) -> None:
    (wide,) = await opened.draw("sized-flow", size=(16, 8))
    assert Image.open(io.BytesIO(wide)).size == (16, 8)
    (large,) = await opened.draw("latent-flow")
    assert Image.open(io.BytesIO(large)).size == (8, 8)


async def test_a_model_that_guides_itself(opened: Opened) -> None:
    steps = opened.value("batch_rows_sum", model="told-flow", graph="denoise")
    near = await opened.draw("told-flow", guidance=1.5)
    assert near != await opened.draw("told-flow", guidance=5.0)
    assert opened.value("batch_rows_sum", model="told-flow", graph="denoise") - steps == 8
    with pytest.raises(BadRequest, match="guides itself") as error:
        await opened.draw("told-flow", guidance=5.0, negative="cross")
    assert error.value.param == "negative_prompt"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"steps": 65}, "steps", "invalid_steps"),
        ({"guidance": 11.0}, "guidance_scale", "invalid_guidance"),
        ({"guidance": float("nan")}, "guidance_scale", "invalid_guidance"),
        ({"solver": "dpm"}, "solver", "invalid_solver"),
        ({"size": (9, 8)}, "size", "invalid_size"),
        ({"prompt": "triangle"}, "prompt", "unknown_class"),
        ({"negative": "cross"}, "negative_prompt", "invalid_value"),
        ({"negative": "dog", "guidance": 2.0}, "negative_prompt", "unknown_class"),
        ({"truncation": 0.5}, "truncation", "invalid_value"),
    ],
)
async def test_what_cannot_be_drawn(opened: Opened, fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as error:
        await opened.draw(**fields)
    assert (error.value.param, error.value.code) == (param, code)


async def test_a_generator_draws_in_one_step(opened: Opened, tiny: Path) -> None:
    studio = Opened(tiny, models=("tiny-gan",))
    try:
        plain = await studio.draw("tiny-gan", seed=3)
        assert await studio.draw("tiny-gan", seed=3, steps=1, guidance=1.0, previews=2) == plain
        refused: list[dict[str, Any]] = [
            {"steps": 2},
            {"guidance": 2.0},
            {"negative": "square"},
            {"solver": "euler"},
        ]
        for fields in refused:
            with pytest.raises(BadRequest):
                await studio.draw("tiny-gan", **fields)
        with pytest.raises(BadRequest) as error:
            await studio.draw("tiny-gan", source=Source(PHOTO))
        assert error.value.code == "task_not_supported"
        request = Draw("tiny-gan", "circle", n=2, seed=3)
        first, second = [each async for each in studio.studio.pictures(request)]
        assert (first.image, first.seed, first.final, first.version) == (plain[0], 3, True, "")
        assert (second.place, second.seed, second.version, second.usage.items) == (1, 4, "1", 2)
    finally:
        studio.studio.close()


# -- streams --------------------------------------------------------------------------------------------------------------


async def test_a_stream_shows_previews_and_ends_with_the_picture(opened: Opened) -> None:
    shown = await opened.stream(steps=8, previews=3, seed=6)
    assert [(each.step, each.steps, each.final) for each in shown] == [
        (2, 8, False),
        (4, 8, False),
        (6, 8, False),
        (8, 8, True),
    ]
    assert [shown[-1].image] == await opened.draw(steps=8, seed=6)
    assert len({each.image for each in shown}) == 4
    assert (shown[-1].version, shown[-1].usage.items) == ("1", 1)
    assert shown[-1].timings.model > 0
    assert shown[0].version == ""


async def test_a_stream_of_several(opened: Opened) -> None:
    shown = await opened.stream(n=3, steps=4, previews=1, seed=6)
    assert sorted((each.place, each.step) for each in shown) == [(i, s) for i in range(3) for s in (2, 4)]
    assert [each.version for each in shown].count("1") == 1
    finals = {each.place: each for each in shown if each.final}
    assert [finals[i].image for i in range(3)] == await opened.draw(n=3, steps=4, seed=6)
    assert [finals[i].seed for i in range(3)] == [6, 7, 8]


async def test_who_leaves_a_stream_stops_its_rows(opened: Opened) -> None:
    cancelled = opened.value("cancelled_total", model="tiny-flow")
    live = opened.studio._models["tiny-flow"].engine.scheduler.live
    stream = opened.studio.pictures(Draw("tiny-flow", "circle", n=4, steps=64, previews=3))
    async with aclosing(stream):
        await anext(stream)
    await until(lambda: not live)
    assert opened.value("cancelled_total", model="tiny-flow") == cancelled + 1


async def test_time_that_is_up(opened: Opened) -> None:
    with pytest.raises(DeadlineExceeded):
        await opened.draw(n=10, steps=64, solver="heun", timeout_seconds=0.001)


# -- from a picture -------------------------------------------------------------------------------------------------------


async def test_the_less_strength_the_more_is_left(opened: Opened) -> None:
    def far(image: bytes) -> float:
        return float(np.abs(pixels(image) - pixels(PHOTO)).mean())

    made = [
        (await opened.draw(source=Source(PHOTO, strength=strength), steps=20))[0]
        for strength in (0.05, 0.5, 1.0)
    ]
    assert far(made[0]) < far(made[1]) < far(made[2])


async def test_only_the_steps_of_its_strength_are_taken(opened: Opened) -> None:
    steps = opened.value("batch_rows_sum", model="tiny-flow", graph="denoise")
    shown = await opened.stream(source=Source(PHOTO, strength=0.25), steps=16, previews=1)
    assert opened.value("batch_rows_sum", model="tiny-flow", graph="denoise") - steps == 4
    assert [(each.step, each.steps) for each in shown] == [(14, 16), (16, 16)]


async def test_a_variation_keeps_more_than_a_translation(opened: Opened) -> None:
    varied = await opened.draw(source=Source(PHOTO, variation=True), steps=20)
    changed = await opened.draw(source=Source(PHOTO), steps=20)
    assert varied == await opened.draw(source=Source(PHOTO, strength=0.6), steps=20)
    assert changed == await opened.draw(source=Source(PHOTO, strength=0.8), steps=20)


@pytest.mark.parametrize("solver", ["euler", "heun"])
async def test_what_is_not_masked_stays(opened: Opened, solver: str) -> None:
    mask = np.zeros((8, 8))
    mask[2:5, 3:7] = 1
    (image,) = await opened.draw(source=Source(PHOTO, png(mask)), solver=solver, steps=6)
    kept = mask == 0
    assert (pixels(image)[kept] == pixels(PHOTO)[kept]).all()
    assert (pixels(image)[~kept] != pixels(PHOTO)[~kept]).any(-1).all()
    again = await asyncio.gather(
        opened.draw(source=Source(PHOTO, png(mask)), solver=solver, steps=6), opened.draw(n=5, steps=9)
    )
    assert again[0] == [image]


async def test_a_model_without_a_way_back_begins_from_no_picture(opened: Opened) -> None:
    with pytest.raises(BadRequest) as error:
        await opened.draw("latent-flow", source=Source(PHOTO))
    assert (error.value.code, error.value.param) == ("task_not_supported", "model")


@pytest.mark.parametrize(
    ("source", "param"),
    [
        (Source(PHOTO, task="colorize"), "task"),
        (Source(PHOTO, task="inpaint"), "mask"),
        (Source(PHOTO, PHOTO, task="translate"), "mask"),
        (Source(b"GIF89a"), "image"),
        (Source(PHOTO, b"no picture"), "mask"),
    ],
)
async def test_what_cannot_be_edited(opened: Opened, source: Source, param: str) -> None:
    with pytest.raises(BadRequest) as error:
        await opened.draw(source=source)
    assert error.value.param == param


# -- latents --------------------------------------------------------------------------------------------------------------


async def test_a_picture_leads_to_its_noise_and_back(opened: Opened) -> None:
    found = await opened.studio.call(Encode("tiny-flow", (ImageItem(PHOTO),), prompt="cross"))
    latent = found.outputs[0].latent
    assert latent is not None
    assert latent.shape == (192,)
    made = await opened.studio.call(Decode("tiny-flow", (latent.data,), prompt="cross"))
    assert np.abs(pixels(made.outputs[0].image or b"") - pixels(PHOTO)).max() < 0.03
    other = await opened.studio.call(Decode("tiny-flow", (latent.data,), prompt="circle"))
    assert other.outputs != made.outputs


async def test_a_latent_is_the_noise_of_a_seed(opened: Opened) -> None:
    made = await opened.studio.call(
        Decode("tiny-flow", (noise(5, 0, 192).tolist(), noise(6, 0, 192).tolist()), prompt="circle")
    )
    drawn = await opened.draw(seed=5, n=2)
    assert all(
        (pixels(output.image or b"") == pixels(picture)).all()
        for output, picture in zip(made.outputs, drawn, strict=True)
    )


@pytest.mark.parametrize("mode", ["linear", "slerp"])
async def test_the_way_between_two(opened: Opened, mode: Any) -> None:
    ends = [[0.1] * 192, [-0.5, 0.5] * 96]
    way = await opened.studio.call(
        Interpolate("tiny-flow", ends[0], ends[1], steps=5, mode=mode, prompt="square")
    )
    made = await opened.studio.call(Decode("tiny-flow", (ends[0], ends[1]), prompt="square"))
    images = [output.image for output in way.outputs]
    assert [images[0], images[-1]] == [output.image for output in made.outputs]
    assert len(set(images)) == 5


async def test_from_a_picture_to_a_latent(opened: Opened) -> None:
    request = Interpolate("tiny-flow", ImageItem(PHOTO), [0.0] * 192, steps=3, timeout_seconds=60)
    way = await opened.studio.call(request)
    assert np.abs(pixels(way.outputs[0].image or b"") - pixels(PHOTO)).max() < 0.03
    back = replace(request, start=[0.0] * 192, end=TensorItem([[[0.5] * 8] * 8] * 3))
    assert (await opened.studio.call(back)).outputs[0] == way.outputs[-1]


async def test_latents_of_another_length(opened: Opened) -> None:
    with pytest.raises(BadRequest) as error:
        await opened.studio.call(Decode("tiny-flow", ([0.0] * 192, [0.0])))
    assert error.value.param == "latents[1]"


async def test_only_a_flow_leads_back(opened: Opened) -> None:
    with pytest.raises(BadRequest, match="flow"):
        await opened.studio.call(Encode("epsilon-diffusion", (ImageItem(PHOTO),)))


async def test_an_autoencoders_latents_have_no_prompt(tiny: Path) -> None:
    studio = Opened(tiny, models=("tiny-ae",))
    try:
        with pytest.raises(BadRequest) as error:
            await studio.studio.call(Decode("tiny-ae", ([0.0] * 4,), prompt="circle"))
        assert error.value.param == "prompt"
    finally:
        studio.studio.close()
