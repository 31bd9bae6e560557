"""The model of `tests.load.image_peers`: a latent diffusion pipeline of random weights, for pictures of 64x64 pixels.

python -m tests.load.peers.pipeline FOLDER
"""

import sys
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_PARTS: Final[Any] = diffusers  # which has hardly any annotations
_TOKENS: Final = 77
_WIDTH: Final = 128  # of what is read of a prompt
_CHANNELS: Final = (64, 128, 192)
_ENDS: Final = ("<|startoftext|>", "<|endoftext|>")


def write_pipeline(folder: Path) -> None:
    """Write it as a diffusers directory, laid out as Stable Diffusion; the same weights every time."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{each}</w>" for each in letters), *_ENDS]
    _PARTS.StableDiffusionPipeline(
        vae=_decoder(),
        text_encoder=_reader(len(words)),
        tokenizer=CLIPTokenizer(
            {word: place for place, word in enumerate(words)}, [], model_max_length=_TOKENS
        ),
        unet=_denoiser(),
        scheduler=_PARTS.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def _denoiser() -> Any:
    return _PARTS.UNet2DConditionModel(
        sample_size=32,
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
    )


def _decoder() -> Any:
    return _PARTS.AutoencoderKL(
        block_out_channels=(32, 64),
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def _reader(words: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_attention_heads=4,
            num_hidden_layers=3,
            max_position_embeddings=_TOKENS,
            bos_token_id=words - 2,
            eos_token_id=words - 1,
            pad_token_id=words - 1,
        )
    )


if __name__ == "__main__":
    write_pipeline(Path(sys.argv[1]))
