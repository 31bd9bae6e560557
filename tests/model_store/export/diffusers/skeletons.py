"""Directories that only say what they are: the configurations of real pipelines, and no weights in their files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

Parts = Mapping[str, tuple[str, Mapping[str, Any]]]

_VAE: Final = (
    "AutoencoderKL",
    {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "out_channels": 3},
)
_BETAS: Final = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_FLUX_SHIFT: Final = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}

SKELETONS: Final[Mapping[str, Parts]] = {
    "sd": {
        "unet": (
            "UNet2DConditionModel",
            {"in_channels": 4, "sample_size": 64, "cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]},
        ),
        "text_encoder": ("CLIPTextModel", {"vocab_size": 49408, "hidden_size": 768}),
        "vae": _VAE,
        "scheduler": ("PNDMScheduler", {**_BETAS, "skip_prk_steps": True, "set_alpha_to_one": False}),
    },
    "sdxl": {
        "unet": (
            "UNet2DConditionModel",
            {
                "in_channels": 4, "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280],
                "addition_embed_type": "text_time",
            },
        ),
        "text_encoder": ("CLIPTextModel", {"vocab_size": 49408, "hidden_size": 768}),
        "text_encoder_2": ("CLIPTextModelWithProjection", {"vocab_size": 49408, "projection_dim": 1280}),
        "vae": _VAE,
        "scheduler": ("EulerDiscreteScheduler", {**_BETAS, "timestep_spacing": "leading"}),
    },
    "sd3": {
        "transformer": (
            "SD3Transformer2DModel",
            {"in_channels": 16, "sample_size": 128, "joint_attention_dim": 4096, "patch_size": 2, "pos_embed_max_size": 192},
        ),
        "text_encoder": ("CLIPTextModelWithProjection", {"vocab_size": 49408, "projection_dim": 768}),
        "text_encoder_2": ("CLIPTextModelWithProjection", {"vocab_size": 49408, "projection_dim": 1280}),
        "text_encoder_3": ("T5EncoderModel", {"vocab_size": 32128}),
        "vae": ("AutoencoderKL", {**_VAE[1], "latent_channels": 16}),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    },
    "flux": {
        "transformer": (
            "FluxTransformer2DModel",
            {"in_channels": 64, "joint_attention_dim": 4096, "patch_size": 1, "guidance_embeds": True},
        ),
        "text_encoder": ("CLIPTextModel", {"vocab_size": 49408, "hidden_size": 768}),
        "text_encoder_2": ("T5EncoderModel", {"vocab_size": 32128}),
        "vae": ("AutoencoderKL", {**_VAE[1], "latent_channels": 16}),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", _FLUX_SHIFT),
    },
    "ddpm": {
        "unet": ("UNet2DModel", {"in_channels": 3, "sample_size": 32, "block_out_channels": [128, 256, 256, 256]}),
        "scheduler": ("DDPMScheduler", {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}),
    },
}  # fmt: skip


def skeleton(
    folder: Path, layout: str, changes: Mapping[str, Mapping[str, Any]] | None = None, **kinds: str | None
) -> Path:
    """Write a layout's files. `changes` are of the parts' configurations, `kinds` of their classes (None: not there)."""
    index: dict[str, Any] = {"_class_name": "Pipeline"}
    for part, (kind, config) in SKELETONS[layout].items():
        kind = kinds.get(part, kind)  # type: ignore[assignment] # noqa: PLW2901
        if kind is None:
            continue
        library = "transformers" if part.startswith("text") else "diffusers"
        index[part] = [library, kind]
        place = folder / part
        place.mkdir(parents=True, exist_ok=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (place / name).write_text(json.dumps({**config, **(changes or {}).get(part, {})}))
        if part != "scheduler":
            (place / "model.safetensors").touch()
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
