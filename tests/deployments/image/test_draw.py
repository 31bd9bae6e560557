import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from deployments.config import HostConfig
from deployments.errors import BadRequest
from deployments.image.draw import Drawing
from deployments.image.files import Files
from deployments.messages import Draw
from model_store.store import Store


def drawing(store: Path, name: str) -> Drawing:
    manifest = Store(str(store)).open(name).manifest
    return Drawing(manifest, Files(manifest, HostConfig()))


@pytest.fixture
def conditional(tiny: Path) -> Drawing:
    return drawing(tiny, "tiny-gan")


@pytest.fixture
def unconditional(tiny: Path) -> Drawing:
    return drawing(tiny, "tiny-vae")


@pytest.mark.parametrize(("prompt", "place"), [("circle", 0), ("square", 1), (" Cross ", 2), ("CIRCLE", 0)])
def test_the_prompt_names_a_class(conditional: Drawing, prompt: str, place: int) -> None:
    (task,) = conditional.prepare(Draw("m", prompt))
    assert (task.graph, task.outputs) == ("generate", ("output",))
    assert int(task.feeds["class_id"]) == place


@pytest.mark.parametrize("prompt", ["", None, "triangle", "circle square"])
def test_another_prompt_is_refused_with_the_known_classes(conditional: Drawing, prompt: str | None) -> None:
    with pytest.raises(BadRequest, match="circle, square, cross") as error:
        conditional.prepare(Draw("m", prompt))
    assert (error.value.code, error.value.param) == ("unknown_class", "prompt")


@pytest.mark.parametrize("prompt", ["", None])
def test_a_model_without_classes_takes_no_prompt(unconditional: Drawing, prompt: str | None) -> None:
    (task,) = unconditional.prepare(Draw("m", prompt))
    assert task.feeds.keys() == {"latent"}
    with pytest.raises(BadRequest) as error:
        unconditional.prepare(Draw("m", "circle"))
    assert error.value.param == "prompt"


def test_each_picture_has_a_stream_of_its_own(conditional: Drawing) -> None:
    tasks = conditional.prepare(Draw("m", "circle", n=4, seed=3))
    assert [task.place for task in tasks] == [0, 1, 2, 3]
    noise = np.array([task.feeds["noise"] for task in tasks])
    assert noise.dtype == np.float32
    assert len(np.unique(noise, axis=0)) == 4


def test_picture_and_seed_decide_the_noise_and_nothing_else(conditional: Drawing) -> None:
    (alone,) = conditional.prepare(Draw("m", "circle", seed=3))
    several = conditional.prepare(Draw("m", "cross", n=9, seed=3))
    (other,) = conditional.prepare(Draw("m", "circle", seed=4))
    assert (alone.feeds["noise"] == several[0].feeds["noise"]).all()
    assert (alone.feeds["noise"] != other.feeds["noise"]).any()


def test_the_noise_is_standard_normal(unconditional: Drawing) -> None:
    noise = np.array([task.feeds["latent"] for task in unconditional.prepare(Draw("m", n=200, seed=0))])
    assert noise.shape == (200, 64)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


def test_only_the_models_own_size_is_drawn(conditional: Drawing) -> None:
    assert conditional.prepare(Draw("m", "circle", size=(8, 8)))
    with pytest.raises(BadRequest, match="8x8") as error:
        conditional.prepare(Draw("m", "circle", size=(16, 8)))
    assert (error.value.code, error.value.param) == ("invalid_size", "size")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_encoded_as_asked(conditional: Drawing, kind: str) -> None:
    request = Draw("m", "circle", seed=11, format=kind)  # type: ignore[arg-type]
    (output,) = conditional.finish(request, [{"output": np.full((1, 8, 8), 0.5, np.float32)}])
    assert output.seed == 11
    assert output.image is not None
    shown = Pillow.open(io.BytesIO(output.image))
    assert (shown.format, shown.size) == (kind.upper(), (8, 8))


def test_quality_is_honoured(conditional: Drawing) -> None:
    noise = [{"output": np.random.default_rng(0).random((1, 32, 32), np.float32)}]
    sizes = [
        len(conditional.finish(Draw("m", "circle", format="jpeg", quality=quality), noise)[0].image or b"")
        for quality in (10, 95)
    ]
    assert sizes[0] < sizes[1]
