"""What a manifest says of a pipeline, of configurations as real ones have them."""

from pathlib import Path
from typing import Any

import pytest

from model_store.export.diffusers.directory import read_pipeline
from model_store.export.diffusers.draft import make_draft, sizes_of
from model_store.export.diffusers.options import Options, parse_size
from model_store.export.diffusers.scheduler import read_solving
from model_store.export.diffusers.words import Words
from model_store.export.draft import Draft
from model_store.export.errors import DraftError
from model_store.imaging import Denoise, Image, Prompt
from tests.model_store.export.diffusers.skeletons import skeleton

LENGTHS = {"sd": (77,), "sdxl": (77, 77), "sd3": (77, 77, 256), "flux": (77, 512), "ddpm": ()}


def draft(
    folder: Path, layout: str, changes: Any = None, *, sizes: tuple[str, ...] = (), **kinds: Any
) -> Draft:
    pipeline = read_pipeline(skeleton(folder, layout, changes, **kinds))
    roles = ("text", "text_2", "text_3")
    prompts = tuple(
        Prompt(tokenizer=f"{role}.json", length=length, pad=0, role=role)
        for role, length, _ in zip(roles, LENGTHS[layout], pipeline.encoders, strict=False)
    )
    options = Options("made", sizes=sizes)
    own = sizes_of(pipeline, options)
    return make_draft(pipeline, Words(prompts, {}), read_solving(pipeline, own[0]), own, options)


def image_of(made: Draft) -> tuple[Image, Denoise]:
    assert made.image is not None
    assert made.image.denoise is not None
    return made.image, made.image.denoise


@pytest.mark.parametrize(
    ("layout", "side", "steps", "guidance", "inputs"),
    [
        ("sd", 512, 25, 7.5, {"latent": (4, 64, 64), "time": (), "context": (77, 768)}),
        ("sdxl", 1024, 30, 5.0, {"latent": (4, 128, 128), "time": (), "context": (77, 2048), "pooled": (1280,), "size": (2,)}),
        ("sd3", 1024, 28, 7.0, {"latent": (16, 128, 128), "time": (), "context": (333, 4096), "pooled": (2048,)}),
        ("flux", 1024, 28, 3.5, {"latent": (16, 128, 128), "time": (), "context": (512, 4096), "pooled": (768,), "guidance": ()}),
        ("ddpm", 32, 50, 1.0, {"latent": (3, 32, 32), "time": ()}),
    ],
)  # fmt: skip
def test_each_family_is_asked_as_usual(
    tmp_path: Path, layout: str, side: int, steps: int, guidance: float, inputs: dict[str, tuple[int, ...]]
) -> None:
    made = draft(tmp_path, layout)

    image, denoise = image_of(made)
    assert (image.width, image.height, denoise.steps, denoise.guidance) == (side, side, steps, guidance)
    assert denoise.most_guidance == (20.0 if guidance > 1 else 1.0)
    graph = made.graphs["denoise"]
    assert {each.role: each.shape[1:] for each in graph.inputs} == inputs
    assert [each.role for each in graph.outputs] == ["velocity" if layout in {"sd3", "flux"} else "epsilon"]
    assert set(made.graphs) == {"denoise"} | (
        {"condition", "decode", "encode"} if layout != "ddpm" else set()
    )
    assert ("interpolate" in made.capabilities) == (layout in {"sd3", "flux"})


def test_without_its_third_encoder_the_context_is_as_long(tmp_path: Path) -> None:
    made = draft(tmp_path, "sd3", text_encoder_3=None)

    assert [each.role for each in made.graphs["condition"].inputs] == ["text", "text_2"]
    assert made.graphs["condition"].outputs[0].shape == ("batch", 333, 4096)


def test_a_flux_of_few_steps_is_not_guided(tmp_path: Path) -> None:
    changes = {
        "transformer": {"guidance_embeds": False},
        "scheduler": {"use_dynamic_shifting": False, "shift": 1.0},
    }

    _, denoise = image_of(made := draft(tmp_path, "flux", changes))

    assert (denoise.steps, denoise.guidance, denoise.most_guidance, denoise.shift) == (4, 1.0, 1.0, 1.0)
    assert "guidance" not in {each.role for each in made.graphs["denoise"].inputs}


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    image, denoise = image_of(made := draft(tmp_path, "ddpm", {"unet": {"num_class_embeds": 3}}))

    assert image.classes == ("0", "1", "2")
    assert denoise.most_guidance == 1.0
    assert made.graphs["denoise"].ranges["label"] == (0, 2)


def test_further_sizes_leave_the_graph_free(tmp_path: Path) -> None:
    made = draft(tmp_path, "sd", sizes=("768x512", "512x512"))

    _, denoise = image_of(made)
    assert denoise.sizes == ((768, 512),)
    graph = made.graphs["denoise"]
    assert graph.inputs[0].shape == graph.outputs[0].shape == ("batch", 4, "height", "width")
    assert graph.sizes == {"height": (16, 32), "width": (32, 48)}


def test_a_side_may_be_longer(tmp_path: Path) -> None:
    image, _ = image_of(draft(tmp_path, "sd", {"unet": {"sample_size": [32, 64]}}))

    assert (image.width, image.height) == (512, 256)


@pytest.mark.parametrize(
    ("layout", "size", "complaint"),
    [
        ("sd", "500x512", "--size 500x512: width and height must be multiples of 64"),
        ("sd", "512", "--size '512' is not like 768x512"),
        ("sd3", "4096x1024", "--size 4096x1024: the model knows places up to 3072"),
    ],
)
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, layout: str, size: str, complaint: str) -> None:
    with pytest.raises(DraftError, match=complaint):
        draft(tmp_path, layout, sizes=(size,))


def test_what_the_manifest_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match="this cannot be said of pictures"):
        draft(tmp_path, "sd", {"vae": {"out_channels": 5}})


def test_a_size_is_width_and_height() -> None:
    assert parse_size("768x512") == (768, 512)
