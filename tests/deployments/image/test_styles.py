"""Generators in two graphs: mapping, truncation, synthesis."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from deployments.config import HostConfig
from deployments.errors import BadRequest
from deployments.image.draw import Drawing
from deployments.image.files import Files
from deployments.messages import Draw, Reply
from deployments.model import OneShotModel
from model_store.session import Array
from tests.deployments.conftest import Opened, OpenStudio
from tests.deployments.toys import until

MEAN = 2.0


@pytest.fixture
def opened(open_tiny: OpenStudio) -> Opened:
    return open_tiny("tiny-style", "tiny-gan")


def drawing(opened: Opened, name: str = "tiny-style") -> Drawing:
    model = opened.studio._models[name]
    assert isinstance(model, OneShotModel)
    assert model.drawing is not None
    return model.drawing


def drawn(opened: Opened, request: Draw) -> list[Array]:
    """The noise of each picture."""
    return [task.feeds["noise"] for task in drawing(opened).prepare(request)]


def brightness(reply: Reply) -> list[float]:
    shown = [np.asarray(Pillow.open(io.BytesIO(each.image or b"")), np.float32) for each in reply.outputs]
    return [float(each.mean() / 255) for each in shown]


@pytest.mark.parametrize(("prompt", "scale"), [("circle", 1), ("square", 2), ("cross", 3)])
@pytest.mark.parametrize("truncation", [None, 1.0, 0.5, 0.125])
async def test_styles_are_moved_towards_their_mean(
    opened: Opened, prompt: str, scale: int, truncation: float | None
) -> None:
    request = Draw("tiny-style", prompt, n=3, seed=7, truncation=truncation)
    share = 1.0 if truncation is None else truncation
    styles = np.array([scale * noise[0] for noise in drawn(opened, request)])
    expected = 1 / (1 + np.exp(-(MEAN + share * (styles - MEAN))))
    assert brightness(await opened.studio.call(request)) == pytest.approx(expected.tolist(), abs=0.003)


async def test_less_truncation_is_more_variety(opened: Opened) -> None:
    async def spread(truncation: float) -> float:
        reply = await opened.studio.call(Draw("tiny-style", "circle", n=16, truncation=truncation))
        return float(np.std(brightness(reply)))

    assert await spread(0.2) < await spread(0.6) < await spread(1.0)


async def test_a_package_says_how_much_is_truncated_unless_asked(tmp_path: Path, opened: Opened) -> None:
    plain = drawing(opened)
    assert plain.image.style is not None
    style = plain.image.style.model_copy(update={"truncation": 0.5})
    image = plain.image.model_copy(update={"style": style})
    manifest = opened.studio._models["tiny-style"].manifest.model_copy(update={"image": image})
    halved = Drawing(manifest, Files(manifest, HostConfig()), np.full(4, MEAN, np.float32))

    def moved(each: Drawing, truncation: float | None) -> float:
        (task,) = each.prepare(Draw("m", "circle", truncation=truncation))
        assert task.then is not None
        following = task.then({"style": np.zeros(4, np.float32)})
        assert (following.graph, following.outputs, following.then) == ("synthesis", ("output",), None)
        return float(following.feeds["style"][0])

    assert [moved(plain, None), moved(plain, 0.25)] == [0, 1.5]
    assert [moved(halved, None), moved(halved, 0.25), moved(halved, 1.0)] == [1, 1.5, 0]


async def test_the_same_bytes_alone_and_among_other_truncations(opened: Opened) -> None:
    request = Draw("tiny-style", "square", n=3, seed=4, truncation=0.7)
    alone = await opened.studio.call(request)
    with opened.held("tiny-style"):
        crowd = [
            asyncio.create_task(
                opened.studio.call(Draw("tiny-style", "cross", n=4, seed=seed, truncation=(seed + 1) / 5))
            )
            for seed in range(5)
        ]
        again = asyncio.create_task(opened.studio.call(request))
        scheduler = opened.engine("tiny-style").scheduler
        await until(lambda: len(scheduler.waiting) + len(scheduler.live) == 23)
    assert (await again).outputs == alone.outputs
    await asyncio.gather(*crowd)
    assert opened.value("images_total", model="tiny-style") == 26
    # Two runs a picture.
    for graph in ("mapping", "synthesis"):
        assert opened.value("batch_rows_sum", model="tiny-style", graph=graph) == 26


async def test_a_model_without_styles_truncates_nothing(opened: Opened) -> None:
    assert await opened.studio.call(Draw("tiny-gan", "circle", truncation=1.0))
    with pytest.raises(BadRequest, match="no styles") as error:
        await opened.studio.call(Draw("tiny-gan", "circle", truncation=0.5))
    assert error.value.param == "truncation"
