"""Pictures that are changed in one run, from a request to an encoded file."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.errors import BadRequest
from deployments.messages import Draw, Source
from deployments.metrics import Metrics
from deployments.studio import Studio, open_studio
from tests.edits import editor


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("edits")
    editor(folder)
    editor(folder, name="fixed-edit", fixed=True)
    editor(folder, name="one-edit", tasks=("colorize",))
    editor(folder, name="even-edit", multiple=4)
    studio = open_studio(HostConfig(store=str(folder), device="cpu"), Metrics(CollectorRegistry()))
    yield studio
    studio.close()


def png(values: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray((values * 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def photo(height: int, width: int, seed: int = 0) -> bytes:
    return png(np.random.default_rng(seed).random((height, width, 3)))


def pixels(data: bytes | None) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data or b"")), np.float32) / 255


async def edit(studio: Studio, image: bytes, model: str = "tiny-edit", **asked: Any) -> Any:
    beside = {
        name: asked.pop(name)
        for name in ("n", "size", "seeded", "prompt", "steps", "background", "truncation")
        if name in asked
    }
    request = Draw(model, source=Source(image, **asked), **{"seeded": False, **beside})
    (output,) = (await studio.call(request)).outputs
    assert output.seed is None
    return pixels(output.image)


async def test_tasks(studio: Studio) -> None:
    sent = photo(6, 9)
    clean = await edit(studio, sent, task="colorize")
    assert clean.shape == (6, 9, 3)
    assert np.allclose(clean, np.clip(pixels(sent) - 0.01, 0, 1), atol=0.003)
    assert np.allclose(
        await edit(studio, sent, task="denoise"), np.clip(pixels(sent) - 0.03, 0, 1), atol=0.003
    )


async def test_upscale(studio: Studio) -> None:
    sent = photo(6, 9)
    large = await edit(studio, sent, task="upscale", size=(18, 12))
    assert np.allclose(large, np.clip(pixels(sent).repeat(2, 0).repeat(2, 1) - 0.02, 0, 1), atol=0.003)


async def test_inpaint(studio: Studio) -> None:
    sent, mask = photo(6, 9), np.zeros((6, 9))
    mask[1:3, 4:] = 1
    made = await edit(studio, sent, mask=png(mask))
    there = mask == 1
    assert np.allclose(made[there], 1 - pixels(sent)[there], atol=0.003)
    assert (made[~there] == pixels(sent)[~there]).all()


async def test_the_only_task_need_not_be_named(studio: Studio) -> None:
    sent = photo(4, 4)
    assert np.allclose(await edit(studio, sent, "one-edit"), pixels(sent), atol=0.003)


async def test_a_graph_of_one_size_takes_any_picture(studio: Studio) -> None:
    for task, size in (("denoise", (8, 8)), ("upscale", (8, 8))):
        assert (await edit(studio, photo(20, 30), "fixed-edit", task=task)).shape[:2] == size
    mask = np.zeros((20, 30))
    mask[:10] = 1
    white = png(np.ones((20, 30, 3)))
    made = await edit(studio, white, "fixed-edit", mask=png(mask))
    assert (made[:4] == 0).all()
    assert (made[5:] == 1).all()


async def test_the_same_bytes_among_others(studio: Studio) -> None:
    requests = [
        (photo(8 + i % 2, 8, i), task) for i in range(4) for task in ("colorize", "upscale", "denoise")
    ]
    alone = [await edit(studio, image, task=task) for image, task in requests]
    together = await asyncio.gather(*(edit(studio, image, task=task) for image, task in requests))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


MASK = png(np.ones((8, 8)))


@pytest.mark.parametrize(
    ("model", "asked", "param", "code"),
    [
        ("tiny-edit", {}, "task", "missing_required_parameter"),
        ("tiny-edit", {"task": "translate"}, "task", "unknown_task"),
        ("one-edit", {"mask": MASK}, "task", "unknown_task"),
        ("tiny-edit", {"task": "inpaint"}, "mask", "invalid_value"),
        ("tiny-edit", {"task": "denoise", "mask": MASK}, "mask", "invalid_value"),
        ("tiny-edit", {"mask": png(np.ones((8, 9)))}, "mask", "invalid_mask"),
        ("tiny-edit", {"task": "denoise", "size": (16, 16)}, "size", "invalid_size"),
        ("tiny-edit", {"task": "denoise", "n": 2}, "n", "invalid_value"),
        ("tiny-edit", {"task": "denoise", "seeded": True}, "seed", "invalid_value"),
        ("tiny-edit", {"task": "denoise", "prompt": "a cat"}, "prompt", "invalid_value"),
        ("tiny-edit", {"task": "denoise", "strength": 0.5}, "strength", "invalid_value"),
        ("tiny-edit", {"task": "denoise", "steps": 4}, "steps", "invalid_steps"),
        ("tiny-edit", {"task": "denoise", "truncation": 0.5}, "truncation", "invalid_value"),
        ("tiny-edit", {"task": "denoise", "background": "transparent"}, "background", "invalid_background"),
        ("tiny-edit", {"task": "denoise", "variation": True}, "model", "task_not_supported"),
    ],
)
async def test_what_cannot_be_edited(studio: Studio, model: str, asked: Any, param: str, code: str) -> None:
    with pytest.raises(BadRequest) as error:
        await edit(studio, photo(8, 8), model, **asked)
    assert (error.value.param, error.value.code) == (param, code)


@pytest.mark.parametrize(
    ("model", "size", "task", "code"),
    [
        ("tiny-edit", (33, 8), "denoise", "image_too_large"),
        ("tiny-edit", (17, 8), "upscale", "image_too_large"),
        ("even-edit", (6, 8), "denoise", "invalid_size"),
    ],
)
async def test_pictures_that_are_too_large(
    studio: Studio, model: str, size: tuple[int, int], task: str, code: str
) -> None:
    with pytest.raises(BadRequest) as error:
        await edit(studio, photo(*size), model, task=task)
    assert (error.value.param, error.value.code) == ("image", code)


async def test_what_the_card_says(studio: Studio) -> None:
    limits = {card.name: card.limits for card in await studio.cards()}
    assert limits["tiny-edit"]["tasks"] == ["inpaint", "colorize", "upscale", "denoise"]
    assert (limits["tiny-edit"]["largest_side"], limits["tiny-edit"]["scale"]) == (32, 2)
    assert "largest_side" not in limits["fixed-edit"]
    assert "scale" not in limits["one-edit"]
