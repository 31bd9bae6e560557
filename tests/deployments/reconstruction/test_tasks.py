import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from deployments.errors import BadRequest
from deployments.messages import (
    Array,
    Decode,
    Encode,
    ImageItem,
    Interpolate,
    Item,
    Reconstruct,
    TensorItem,
)
from deployments.oneshot import Result, Task
from deployments.pictures import decode, encode
from deployments.reconstruction.tasks import Autoencoding
from model_store.manifest import Manifest, Scoring
from model_store.store import Store

FLAT = [0.25] * 64


def manifest(store: Path, name: str, **changes: Any) -> Manifest:
    return Store(str(store)).open(name).manifest.model_copy(update=changes)


@pytest.fixture
def plain(tiny: Path) -> Autoencoding:
    return Autoencoding(manifest(tiny, "tiny-ae"))


@pytest.fixture
def variational(tiny: Path) -> Autoencoding:
    return Autoencoding(manifest(tiny, "tiny-vae"))


@pytest.fixture
def tensors_only(tiny: Path) -> Autoencoding:
    """As `plain`, of a model whose items are no pictures."""
    return Autoencoding(manifest(tiny, "tiny-ae", image=None))


def items(*data: Any) -> tuple[Item, ...]:
    return tuple(TensorItem(each) for each in data)


def result(**arrays: Any) -> Result:
    named = {
        name.replace("score_", "score."): np.asarray(value, np.float32) for name, value in arrays.items()
    }
    return {"reconstruction": np.full((1, 8, 8), 0.5, np.float32), **named}


def refused(act: Any, *args: Any) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        act(*args)
    return error.value


def picture(png: bytes | None) -> np.ndarray[Any, Any]:
    assert png is not None
    return np.asarray(Pillow.open(io.BytesIO(png)))


# -- reconstruction ----------------------------------------------------------------------------------------------------


def test_a_reconstruction_comes_with_its_error(plain: Autoencoding) -> None:
    request = Reconstruct("m", items(FLAT), error_map=True, latent=True)
    (task,) = plain.reconstruct(request)
    assert task.outputs == ("reconstruction", "score.l1", "error_map", "latent")
    error_map = np.zeros((1, 8, 8), np.float32)
    (output,) = plain.reconstructed(
        request, [result(score_l1=0.25, error_map=error_map, latent=np.arange(64))]
    )
    assert output.error == 0.25
    assert output.image is None
    assert output.array == Array((1, 8, 8), np.full(64, 0.5, "<f4").tobytes())
    assert output.latent == Array((64,), np.arange(64, dtype="<f4").tobytes())
    assert picture(output.error_map).shape == (8, 8, 3)


def test_a_picture_is_answered_with_a_picture(plain: Autoencoding) -> None:
    request = Reconstruct("m", (ImageItem(encode(np.full((1, 8, 8), 0.25, np.float32))),))
    (task,) = plain.reconstruct(request)
    assert np.abs(task.feeds["input"] - 0.25).max() < 0.01
    (output,) = plain.reconstructed(request, [result(score_l1=0.25)])
    assert output.array is None
    assert output.image is not None
    assert np.abs(decode(output.image, 1, 8, 8, "p") - 0.5).max() < 0.01


def test_a_model_without_scores_reconstructs_without_an_error(tiny: Path) -> None:
    auto = Autoencoding(manifest(tiny, "tiny-ae", scoring=None))
    request = Reconstruct("m", items(FLAT))
    assert auto.reconstruct(request)[0].outputs == ("reconstruction",)
    assert auto.reconstructed(request, [result()])[0].error is None


def test_only_an_error_is_told_as_one(tiny: Path) -> None:
    """A density may be negative, and is no error; another score of the graph may be one."""
    own = manifest(tiny, "tiny-ae")
    assert own.scoring is not None
    calibrations = {"density": next(iter(own.scoring.calibrations.values())), **own.scoring.calibrations}
    dense = Scoring(default="density", calibrations=calibrations)
    request = Reconstruct("m", items(FLAT))
    [task] = Autoencoding(manifest(tiny, "tiny-ae", scoring=dense)).reconstruct(request)
    assert task.outputs == ("reconstruction", "score.l1")
    only = Scoring(default="density", calibrations={"density": calibrations["density"]})
    [task] = Autoencoding(manifest(tiny, "tiny-ae", scoring=only)).reconstruct(request)
    assert task.outputs == ("reconstruction",)


def test_a_model_of_tensors_has_no_maps(tensors_only: Autoencoding) -> None:
    assert refused(tensors_only.reconstruct, Reconstruct("m", items(FLAT), error_map=True)).param == "return"


def test_a_reconstruction_that_is_not_finite_is_refused(plain: Autoencoding) -> None:
    error = refused(plain.reconstructed, Reconstruct("m", items(FLAT)), [result(score_l1=np.nan)])
    assert error.param == "input[0]"


def test_a_seed_samples_and_without_one_the_mean_is_taken(variational: Autoencoding) -> None:
    (mean,) = variational.reconstruct(Reconstruct("m", items(FLAT)))
    assert not mean.feeds["noise"].any()
    first, second = variational.reconstruct(Reconstruct("m", items(FLAT, FLAT), seed=7))
    again, _ = variational.reconstruct(Reconstruct("m", items(FLAT, FLAT), seed=7))
    other, _ = variational.reconstruct(Reconstruct("m", items(FLAT, FLAT), seed=8))
    assert (first.feeds["noise"] == again.feeds["noise"]).all()
    assert (first.feeds["noise"] != second.feeds["noise"]).any()
    assert (first.feeds["noise"] != other.feeds["noise"]).any()


def test_a_model_without_noise_takes_no_seed(plain: Autoencoding) -> None:
    assert refused(plain.reconstruct, Reconstruct("m", items(FLAT), seed=1)).param == "seed"


# -- latents -----------------------------------------------------------------------------------------------------------


def test_latents_come_with_their_spread_where_there_is_one(
    plain: Autoencoding, variational: Autoencoding
) -> None:
    request = Encode("m", items(FLAT))
    assert plain.encode(request)[0].outputs == ("latent",)
    assert variational.encode(request)[0].outputs == ("latent", "spread")
    (output,) = plain.encoded(request, [{"latent": np.ones(2, np.float32)}])
    assert output.latent == Array((2,), np.ones(2, "<f4").tobytes())
    assert output.spread is None
    both = {"latent": np.ones(2, np.float32), "spread": np.zeros(2, np.float32)}
    (output,) = variational.encoded(request, [both])
    assert output.spread == Array((2,), bytes(8))


def test_latents_are_decoded(plain: Autoencoding) -> None:
    tasks = plain.decode(Decode("m", (FLAT, [0.5] * 64)))
    assert [(task.graph, task.outputs, task.place) for task in tasks] == [
        ("decode", ("output",), 0),
        ("decode", ("output",), 1),
    ]
    assert tasks[1].feeds["latent"].tolist() == [0.5] * 64
    assert refused(plain.decode, Decode("m", (FLAT, [1.0]))).param == "latents[1]"


def test_a_decoded_latent_is_a_picture_where_the_model_makes_them(
    plain: Autoencoding, tensors_only: Autoencoding
) -> None:
    request, made = Decode("m", (FLAT,)), [{"output": np.full((1, 8, 8), 0.5, np.float32)}]
    assert picture(plain.decoded(request, made)[0].image).shape == (8, 8)
    assert tensors_only.decoded(request, made)[0].array == Array((1, 8, 8), np.full(64, 0.5, "<f4").tobytes())


def test_what_a_latent_cannot_be_decoded_to_is_refused(plain: Autoencoding) -> None:
    made = [{"output": np.full((1, 8, 8), np.inf, np.float32)}]
    assert refused(plain.decoded, Decode("m", (FLAT,)), made).param == "latents[0]"
    assert refused(plain.decoded, Interpolate("m", FLAT, FLAT), made).param is None


def path(auto: Autoencoding, start: Any, end: Any, **options: Any) -> list[np.ndarray[Any, Any]]:
    request = Interpolate("m", start, end, **options)
    first, last = auto.ends(request)
    assert isinstance(first, np.ndarray)
    assert isinstance(last, np.ndarray)
    tasks = auto.interpolate(request, first, last)
    assert [task.place for task in tasks] == list(range(request.steps))
    assert all(task.feeds["latent"].dtype == np.float32 for task in tasks)
    return [task.feeds["latent"] for task in tasks]


UNIT = np.eye(64, dtype=np.float32)


@pytest.mark.parametrize("mode", ["linear", "slerp"])
def test_both_ends_are_exact(plain: Autoencoding, mode: str) -> None:
    chance = np.random.default_rng(0)
    start, end = chance.standard_normal((2, 64), np.float32)
    way = path(plain, start.tolist(), end.tolist(), steps=5, mode=mode)
    assert (way[0] == start).all()
    assert (way[-1] == end).all()


def test_a_straight_way_has_equal_steps(plain: Autoencoding) -> None:
    way = path(plain, [0.0] * 64, [1.0] * 64, steps=5)
    assert [float(point[0]) for point in way] == [0, 0.25, 0.5, 0.75, 1]


def test_a_way_along_the_circle_keeps_its_length(plain: Autoencoding) -> None:
    way = path(plain, UNIT[0].tolist(), UNIT[1].tolist(), steps=7, mode="slerp")
    assert np.linalg.norm(way, axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    angles = [np.arccos(np.clip(np.dot(a, b), -1, 1)) for a, b in pairwise(way)]
    assert angles == pytest.approx([np.pi / 12] * 6, abs=1e-4)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (UNIT[0], 3 * UNIT[0]),
        (UNIT[0], UNIT[0]),
        (UNIT[0], -UNIT[0]),
        (np.zeros(64), UNIT[0]),
        (np.zeros(64), np.zeros(64)),
    ],
    ids=["parallel", "same", "opposite", "from zero", "zeros"],
)
def test_where_there_is_no_circle_the_way_is_straight(
    plain: Autoencoding, start: np.ndarray[Any, Any], end: np.ndarray[Any, Any]
) -> None:
    curved = path(plain, start.tolist(), end.tolist(), steps=5, mode="slerp")
    straight = path(plain, start.tolist(), end.tolist(), steps=5, mode="linear")
    assert np.abs(np.array(curved) - np.array(straight)).max() < 1e-6


def test_an_end_may_be_an_item(variational: Autoencoding) -> None:
    request = Interpolate("m", FLAT, TensorItem(FLAT))
    start, end = variational.ends(request)
    assert isinstance(start, np.ndarray)
    assert isinstance(end, Task)
    assert (end.outputs, end.place) == (("latent",), 0)
    assert not end.feeds["noise"].any()
    both = variational.ends(Interpolate("m", TensorItem(FLAT), TensorItem(FLAT)))
    assert [task.place for task in both if isinstance(task, Task)] == [0, 1]


@pytest.mark.parametrize(
    ("start", "end", "param"),
    [
        ([1.0], FLAT, "from"),
        (FLAT, [1.0], "to"),
        (TensorItem([1.0]), FLAT, "from.tensor.data"),
        (FLAT, ImageItem(b"no picture"), "to.image"),
    ],
)
def test_a_bad_end_is_named(plain: Autoencoding, start: Any, end: Any, param: str) -> None:
    assert refused(plain.ends, Interpolate("m", start, end)).param == param
