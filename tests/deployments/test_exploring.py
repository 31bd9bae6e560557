"""What is done with latents, from a request to pictures, by kilobyte models: a latent of an autoencoder is its picture."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from deployments import exploring
from deployments.config import HostConfig
from deployments.errors import BadRequest, DeadlineExceeded, ModelNotFound
from deployments.messages import Array, Decode, Encode, ImageItem, Output, TensorItem, Usage
from deployments.messages.latents import Combine, Compress, Decompress, Group, LatentRequest, Traverse
from deployments.metrics import Metrics
from deployments.pictures import encode
from deployments.studio import Studio, open_studio
from tests import packages
from tests.flows import flow
from tests.graphs import Sketch, build

DARK, BRIGHT = [0.125] * 64, [0.5] * 64
RAMP = np.linspace(0, 0.5, 64, dtype=np.float32)


def item(values: Any) -> TensorItem:
    return TensorItem(np.asarray(values, np.float32).tobytes(), (1, 8, 8))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    store = tmp_path_factory.mktemp("latents")
    packages.autoencoder(store)
    packages.autoencoder(store, name="other-ae", channels=1, variational=False, version="2")
    packages.autoencoder(store, name="tiny-vae", variational=True)
    packages.autoencoder(store, name="known-ae", latents=np.array([[0.0] * 64, [0.5] * 64], np.float32))
    packages.autoencoder(store, name="tiny-colour", channels=3)
    packages.generator(store)
    packages.text(store, name="tiny-text")
    flow(store, name="tiny-flow")
    tensors(store)
    studio = open_studio(HostConfig(store=str(store), device="cpu"), Metrics(CollectorRegistry()))
    yield studio
    studio.close()


def tensors(folder: Path) -> Path:
    """No pictures: the latent is half of the item."""
    encoder, decoder = Sketch(), Sketch()
    encoder(
        "Mul",
        encoder.input("input", "float32", "batch", 4),
        encoder.constant(0.5, "float32"),
        into=["latent"],
    )
    encoder.output("latent", "float32", "batch", 4)
    decoder(
        "Mul",
        decoder.input("latent", "float32", "batch", 4),
        decoder.constant(2.0, "float32"),
        into=["output"],
    )
    decoder.output("output", "float32", "batch", 4)
    numbers = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    fields = {"task": "reconstruction", "family": "linear", "capabilities": ["encode", "decode"]}
    graphs: dict[str, Any] = {
        "encode": (encoder, {"input": numbers}),
        "decode": (decoder, {"latent": numbers}),
    }
    return build(folder, "tiny-linear", "1", fields, graphs)


def pixels(output: Output) -> Any:
    return np.asarray(Image.open(io.BytesIO(output.image or b"")), np.float32) / 255


def floats(array: Array | None) -> Any:
    assert array is not None
    return np.frombuffer(array.data, "<f4")


async def refused(studio: Studio, request: LatentRequest) -> tuple[str, str | None]:
    with pytest.raises(BadRequest) as error:
        await studio.call(request)
    return error.value.code, error.value.param


# -- one axis --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [DARK, item(DARK), ImageItem(encode(np.full((1, 8, 8), 0.125, np.float32)))]
)
async def test_one_axis_moves_and_the_others_stay(studio: Studio, start: Any) -> None:
    reply = await studio.call(Traverse("tiny-ae", start, 9, 0.0, 1.0, steps=3))
    assert [output.value for output in reply.outputs] == [0.0, 0.5, 1.0]
    shown = np.stack([pixels(output) for output in reply.outputs]).reshape(3, 64)
    assert shown[:, 9].tolist() == pytest.approx([0, 0.5, 1], abs=0.01)
    assert np.delete(shown, 9, axis=1) == pytest.approx(0.125, abs=0.01)
    assert reply.usage == Usage(items=3 if isinstance(start, list) else 4)
    assert (reply.version, reply.timings.model > 0) == ("1", True)


async def test_deviations_where_the_model_has_them(studio: Studio) -> None:
    reply = await studio.call(Traverse("tiny-vae", DARK, 0, -2.0, 2.0, steps=5, unit="deviation"))
    assert [output.value for output in reply.outputs] == [-2, -1, 0, 1, 2]
    reply = await studio.call(Traverse("known-ae", DARK, 0, -1.0, 1.0, steps=3, unit="deviation"))
    assert [output.value for output in reply.outputs] == [0, 0.25, 0.5]
    request = Traverse("tiny-ae", DARK, 0, -2.0, 2.0, unit="deviation")
    assert await refused(studio, request) == ("unknown_spread", "unit")


async def test_a_flow_is_traversed_for_its_prompt(studio: Studio) -> None:
    request = Traverse("tiny-flow", [0.0] * 192, 5, -3.0, 3.0, steps=3, unit="deviation", prompt="square")
    reply = await studio.call(request)
    latents = np.zeros((3, 192), np.float32)
    latents[:, 5] = [-3, 0, 3]
    decoded = await studio.call(Decode("tiny-flow", tuple(row.tobytes() for row in latents), prompt="square"))
    assert [output.image for output in reply.outputs] == [output.image for output in decoded.outputs]
    assert len({output.image for output in reply.outputs}) == 3


async def test_tensors_are_traversed(studio: Studio) -> None:
    start = TensorItem([2.0, 4.0, 6.0, 8.0])
    reply = await studio.call(Traverse("tiny-linear", start, 3, -1.0, 1.0, steps=2))
    assert [floats(output.array).tolist() for output in reply.outputs] == [[2, 4, 6, -2], [2, 4, 6, 2]]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"start": [0.0]}, "from"),
        ({"start": TensorItem([0.0])}, "from.tensor.data"),
        ({"start": ImageItem(b"none")}, "from.image"),
        ({"axis": 64}, "axis"),
        ({"high": 1e39}, "range"),
        ({"prompt": "circle"}, "prompt"),
        ({"model": "tiny-gan"}, "model"),
        ({"model": "tiny-text"}, "model"),
    ],
)
async def test_what_cannot_be_traversed_is_named(studio: Studio, change: Any, param: str) -> None:
    request = replace(Traverse("tiny-ae", item(DARK), 0, 0.0, 1.0), **change)
    assert (await refused(studio, request))[1] == param


# -- sums of means ---------------------------------------------------------------------------------------------------


async def test_means_are_weighed_and_summed(studio: Studio) -> None:
    groups = (
        Group((item(DARK), BRIGHT)),
        Group((BRIGHT,), -1.0),
        Group((item(BRIGHT), item(DARK), DARK, item(RAMP)), 2.0),
    )
    reply = await studio.call(Combine("tiny-ae", groups))
    (output,) = reply.outputs
    mean = (
        (np.asarray(DARK) + BRIGHT) / 2 - BRIGHT + 2 * (np.asarray(BRIGHT) + 2 * np.asarray(DARK) + RAMP) / 4
    )
    assert floats(output.latent) == pytest.approx(mean, abs=1e-6)
    assert pixels(output).ravel() == pytest.approx(mean.clip(0, 1), abs=0.003)
    assert reply.usage == Usage(items=5)  # four items there, one sum back


async def test_one_member_is_itself(studio: Studio) -> None:
    sum_ = await studio.call(Combine("tiny-flow", (Group(([0.25] * 192,)),), prompt="circle"))
    alone = await studio.call(Decode("tiny-flow", ([0.25] * 192,), prompt="circle"))
    assert sum_.outputs[0].image == alone.outputs[0].image


@pytest.mark.parametrize(
    ("groups", "param"),
    [
        ((Group((DARK,)), Group((item(DARK), [0.0]))), "groups[1].input[1]"),
        ((Group((DARK, item(DARK))), Group((DARK, ImageItem(b"none")))), "groups[1].input[1].image"),
        ((Group((DARK,), 1e308), Group((DARK,), 1e308)), "groups"),
        ((Group((BRIGHT,), 1e39),), "groups"),
    ],
)
async def test_what_cannot_be_summed_is_named(studio: Studio, groups: Any, param: str) -> None:
    assert (await refused(studio, Combine("tiny-ae", groups)))[1] == param


# -- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny-ae", "tiny-vae"])
async def test_compressed_latents_show_what_is_told(studio: Studio, model: str) -> None:
    sent = (item(RAMP), item(RAMP[::-1]), item(np.minimum(RAMP, 0.25)))
    reply = await studio.call(Compress(model, sent))
    compression = reply.compression
    assert compression is not None
    assert compression.bits_per_pixel == 8 * len(compression.data) / (3 * 64)
    assert (compression.psnr or 99) > 35
    assert all((output.psnr or 99) > 35 for output in reply.outputs)
    assert (reply.outputs[0].spread is None) == (model == "tiny-ae")
    for file in (compression.jpeg, compression.webp):
        assert file is not None
        assert file.fits == (file.bytes <= len(compression.data))
    back = await studio.call(Decompress(model, compression.data))
    latents = tuple(output.latent.data for output in reply.outputs if output.latent)
    assert [o.image for o in back.outputs] == [
        o.image for o in (await studio.call(Decode(model, latents))).outputs
    ]
    plain = await studio.call(Encode(model, sent))
    worst = max(
        np.abs(floats(a.latent) - floats(b.latent)).max()
        for a, b in zip(reply.outputs, plain.outputs, strict=True)
    )
    assert 0 < worst <= 4 / 255 + 1e-6


async def test_pictures_in_colour_and_of_a_flow(studio: Studio) -> None:
    red = np.array([0.5, 0.25, 0.0], np.float32)[:, None, None] * np.ones((3, 8, 8), np.float32)
    for model, prompt in (("tiny-colour", None), ("tiny-flow", "circle")):
        reply = await studio.call(Compress(model, (ImageItem(encode(red)),) * 2, prompt=prompt))
        assert reply.compression is not None
        assert (reply.compression.psnr or 99) > 30
        assert len((await studio.call(Decompress(model, reply.compression.data, prompt=prompt))).outputs) == 2


async def test_ranges_that_a_package_knows_take_no_room(studio: Studio) -> None:
    sent = (item(RAMP), item(RAMP[::-1]))
    known = (await studio.call(Compress("known-ae", sent))).compression
    own = (await studio.call(Compress("tiny-ae", sent))).compression
    assert known is not None
    assert own is not None
    assert len(known.data) < len(own.data) / 2


@pytest.mark.parametrize("model", ["other-ae", "tiny-vae", "tiny-colour", "tiny-flow", "tiny-linear"])
async def test_another_models_bytes_are_refused(studio: Studio, model: str) -> None:
    reply = await studio.call(Compress("tiny-ae", (item(RAMP),)))
    assert reply.compression is not None
    assert await refused(studio, Decompress(model, reply.compression.data)) == ("invalid_latents", "latents")


async def test_only_pictures_latents_are_compressed(studio: Studio) -> None:
    request = Compress("tiny-linear", (TensorItem([0.0] * 4),))
    assert await refused(studio, request) == ("task_not_supported", "model")


@pytest.mark.parametrize("model", ["tiny-gan", "tiny-text"])
async def test_what_decodes_nothing_compresses_nothing(studio: Studio, model: str) -> None:
    for request in (Compress(model, (item(RAMP),)), Decompress(model, b"x")):
        assert await refused(studio, request) == ("task_not_supported", "model")


async def test_a_damaged_item_is_named(studio: Studio) -> None:
    request = Compress("tiny-ae", (item(RAMP), ImageItem(b"none")))
    assert (await refused(studio, request))[1] == "input[1].image"


async def test_how_much_is_compressed_at_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await refused(studio, Compress("tiny-ae", (item(RAMP),) * 257)) == ("too_many_rows", "input")
    monkeypatch.setattr(exploring, "_MOST_PIXELS", 127)
    assert await refused(studio, Compress("tiny-colour", (item(RAMP),) * 2)) == ("too_many_rows", "input")


# -- all of them -----------------------------------------------------------------------------------------------------


REQUESTS: list[LatentRequest] = [
    Traverse("tiny-ae", item(DARK), 0, 0.0, 1.0),
    Combine("tiny-ae", (Group((item(DARK),)),)),
    Compress("tiny-ae", (item(RAMP),)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_time_is_for_the_whole_of_it(studio: Studio, request_: LatentRequest) -> None:
    assert (await studio.call(replace(request_, timeout_seconds=30.0))).outputs
    with pytest.raises(DeadlineExceeded):
        await studio.call(replace(request_, timeout_seconds=0.0))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_of_a_version_that_is_not_there(studio: Studio, request_: LatentRequest) -> None:
    with pytest.raises(ModelNotFound):
        await studio.call(replace(request_, version="2"))
