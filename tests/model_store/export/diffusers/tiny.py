"""Random pipelines of kilobytes, of each layout, as local directories that diffusers would leave."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

diffusers: Final[Any] = importlib.import_module("diffusers")
"""Lazy: it tells no types."""

WORDS: Final = 520
"""Tokens of both kinds of tokenizer."""

BETAS: Final[Mapping[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def clip_files() -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of a CLIP tokenizer: bytes, and bytes that end a word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{each}</w>" for each in alphabet), "ca", "cat</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: place for place, token in enumerate(tokens)}, ["c a", "ca t</w>"]


def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    vocabulary, merges = clip_files()
    pairs: list[Any] = [tuple(each.split()) for each in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=16, pad_token=pad)


def t5_tokenizer(length: int = 24) -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(each), -3.0) for each in range(97, 123)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def clip(projected: bool = False, **changes: Any) -> Any:
    config = CLIPTextConfig(
        **{
            "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4,
            "num_hidden_layers": 2, "max_position_embeddings": 16, "projection_dim": 32,
            "bos_token_id": 514, "eos_token_id": 515, "pad_token_id": 515, **changes,
        }
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5(width: int = 32) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=32, d_model=width, d_kv=8, d_ff=37, num_layers=1, num_heads=4, dropout_rate=0.0)
    )


def vae(**changes: Any) -> Any:
    return diffusers.AutoencoderKL(
        **{
            "block_out_channels": (4,), "in_channels": 3, "out_channels": 3, "latent_channels": 4, "norm_num_groups": 2,
            "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",), "mid_block_add_attention": False, **changes,
        }
    )  # fmt: skip


def unet(**changes: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "block_out_channels": (16,), "layers_per_block": 1, "sample_size": 8, "in_channels": 4, "out_channels": 4,
            "down_block_types": ("CrossAttnDownBlock2D",), "norm_num_groups": 2, "attention_head_dim": 2,
            "up_block_types": ("CrossAttnUpBlock2D",), "cross_attention_dim": 32, **changes,
        }
    )  # fmt: skip


def stable_diffusion(**scheduler: Any) -> Any:
    halving: dict[str, Any] = {
        "block_out_channels": (4, 8), "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "mid_block_add_attention": True,
    }  # fmt: skip
    net = unet(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae(**halving), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=net,
        scheduler=diffusers.PNDMScheduler(**{**BETAS, "skip_prk_steps": True, **scheduler}),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl(**scheduler: Any) -> Any:
    own = {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80, "cross_attention_dim": 64, "use_linear_projection": True,
    }  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=clip(projected=True),
        tokenizer_2=clip_tokenizer(pad="!"), unet=unet(**own),
        scheduler=diffusers.EulerDiscreteScheduler(**{**BETAS, "timestep_spacing": "leading", **scheduler}), add_watermarker=False,
    )  # fmt: skip


def stable_diffusion_3(*, third: bool = True) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4, pos_embed_max_size=16,
    )  # fmt: skip
    both = {"text_encoder_3": t5(64) if third else None, "tokenizer_3": t5_tokenizer() if third else None}
    return diffusers.StableDiffusion3Pipeline(
        vae=vae(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(projected=True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected=True), tokenizer_2=clip_tokenizer(pad="!"), transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), **both,
    )  # fmt: skip


def flux(*, guided: bool = True, **scheduler: Any) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guided,
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, "use_dynamic_shifting": guided, **scheduler}),
        vae=vae(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )  # fmt: skip


def ddpm(**changes: Any) -> Any:
    model = diffusers.UNet2DModel(
        **{
            "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (8,),
            "norm_num_groups": 2, "attention_head_dim": 4,
            "down_block_types": ("AttnDownBlock2D",), "up_block_types": ("AttnUpBlock2D",), **changes,
        }
    )  # fmt: skip
    return diffusers.DDPMPipeline(unet=model, scheduler=diffusers.DDPMScheduler())


LAYOUTS: Final[Mapping[str, Callable[..., Any]]] = {
    "sd": stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "ddpm": ddpm,
}


def save(layout: str, folder: Path, **settings: Any) -> Path:
    """The layout's directory."""
    torch.manual_seed(0)
    pipeline = LAYOUTS[layout](**settings)
    pipeline.save_pretrained(folder)
    return folder
