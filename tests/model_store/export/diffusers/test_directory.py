"""What a pipeline's files say, and what is refused before anything is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from model_store.export.diffusers.directory import read_pipeline
from model_store.export.errors import DraftError
from tests.model_store.export.diffusers.skeletons import skeleton


@pytest.mark.parametrize(
    ("layout", "reduction", "multiple", "channels", "encoders"),
    [
        ("sd", 8, 64, 4, 1),
        ("sdxl", 8, 32, 4, 2),
        ("sd3", 8, 16, 16, 3),
        ("flux", 8, 16, 16, 2),
        ("ddpm", 1, 8, 3, 0),
    ],
)
def test_a_family_is_known_by_its_architecture(
    tmp_path: Path, layout: str, reduction: int, multiple: int, channels: int, encoders: int
) -> None:
    found = read_pipeline(skeleton(tmp_path, layout))

    assert found.layout.name == layout
    assert (found.reduction, found.multiple, found.channels) == (reduction, multiple, channels)
    assert len(found.encoders) == encoders


def test_stable_diffusion_3_does_without_t5(tmp_path: Path) -> None:
    found = read_pipeline(skeleton(tmp_path, "sd3", text_encoder_3=None))

    assert [folder for folder, _ in found.encoders] == ["text_encoder", "text_encoder_2"]


@pytest.mark.parametrize(
    ("layout", "changes", "kinds", "complaint"),
    [
        ("sd", {}, {"unet": None}, "names neither a unet nor a transformer"),
        ("sd", {}, {"unet": "Kandinsky"}, "pipelines around a Kandinsky like this are not exported; those of Stable Diffusion, "),
        ("sd", {"unet": {"addition_embed_type": "image"}}, {}, "like this are not exported"),
        ("sd", {"unet": {"in_channels": 9}}, {}, "the unet takes 9 channels where the latent has 4: pipelines that also read"),
        ("sd", {"unet": {"time_cond_proj_dim": 256}}, {}, "takes more than Stable Diffusion gives it: time_cond_proj_dim"),
        ("sd", {}, {"text_encoder": "XLMRoberta"}, "Stable Diffusion has a CLIPTextModel as its text_encoder, not XLMRoberta"),
        ("sdxl", {}, {"text_encoder": None}, "has a CLIPTextModel as its text_encoder, not none"),
        ("sdxl", {"vae": {"latents_mean": [0.0] * 4}}, {}, "scales each channel of the latent by itself"),
        ("sd", {"text_encoder": {"use_attention_mask": True}}, {}, "does not read what a prompt is padded with"),
        ("flux", {}, {"vae": "AutoencoderTiny"}, "Flux has a AutoencoderKL as its vae, not AutoencoderTiny"),
        ("flux", {}, {"scheduler": None}, "names no scheduler"),
    ],
)  # fmt: skip
def test_what_is_of_no_known_family_is_refused(
    tmp_path: Path, layout: str, changes: Mapping[str, Any], kinds: Mapping[str, str | None], complaint: str
) -> None:
    skeleton(tmp_path, layout, changes, **kinds)

    with pytest.raises(DraftError, match=complaint):
        read_pipeline(tmp_path)


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DraftError, match="is no folder: give the local directory of a pipeline, nothing is downloaded"
    ):
        read_pipeline(tmp_path / "away")
    with pytest.raises(DraftError, match=r"there is no model_index\.json"):
        read_pipeline(tmp_path)
    skeleton(tmp_path, "sd")
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(DraftError, match=r"there is no unet/config\.json"):
        read_pipeline(tmp_path)


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    skeleton(tmp_path, "sd")
    (tmp_path / "vae" / "model.safetensors").rename(tmp_path / "vae" / "model.bin")

    with pytest.raises(DraftError, match="the weights are pickled"):
        read_pipeline(tmp_path)


def test_code_in_a_directory_is_refused(tmp_path: Path) -> None:
    index = json.loads((skeleton(tmp_path, "sd") / "model_index.json").read_text())
    checked = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index | checked))
    assert read_pipeline(tmp_path).layout.name == "sd"
    (tmp_path / "model_index.json").write_text(
        json.dumps(index | {"unet": ["my_unet", "UNet2DConditionModel"]})
    )

    with pytest.raises(
        DraftError, match=r"the part unet needs code of its own \(my_unet\), which is never run"
    ):
        read_pipeline(tmp_path)
