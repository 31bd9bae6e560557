"""The modules behind a pipeline's graphs: diffusers' and transformers' own, called with a server's conventions.

Imported only by processes that export. Weights are read from safetensors alone.
"""

import importlib
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_store.export.diffusers.directory import VAE, Pipeline, read_pipeline
from model_store.export.diffusers.words import read_words

# Their classes are looked up by the names that a directory's files have.
DIFFUSERS: Final[Any] = importlib.import_module("diffusers")
TRANSFORMERS: Final[Any] = importlib.import_module("transformers")
HALF: Final = "fp16"


class Denoiser(nn.Module):
    """What every family's denoiser is called through: conditions by role, in the order of the graph's inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Plain(Denoiser):
    """Latent [batch, channels, height, width], time [batch] and maybe a class each -> noise, or what else it predicts."""

    def forward(self, latent: Tensor, time: Tensor, *label: Tensor) -> Tensor:
        """As a `UNet2DModel` is called."""
        predicted: Tensor = self.model(latent, time, *label, return_dict=False)[0]
        return predicted


class Reading(Denoiser):
    """The same of a text's `context` [batch, tokens, width]."""

    def forward(self, latent: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """As Stable Diffusion's UNet is called."""
        predicted: Tensor = self.model(latent, time, encoder_hidden_states=context, return_dict=False)[0]
        return predicted


class Sized(Denoiser):
    """The same of a text's `pooled` [batch, width] as well, and of the picture's `size` [batch, 2] in pixels, uncropped."""

    def forward(self, latent: Tensor, time: Tensor, context: Tensor, pooled: Tensor, size: Tensor) -> Tensor:
        """As Stable Diffusion XL's UNet is called."""
        added = {"text_embeds": pooled, "time_ids": torch.cat([size, torch.zeros_like(size), size], -1)}
        predicted: Tensor = self.model(
            latent, time, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False
        )[0]
        return predicted


class Joint(Denoiser):
    """A flow: `time` runs from noise to data, 0 to 1, where the model counts from 1000 down, and looks the other way."""

    def forward(self, latent: Tensor, time: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """As Stable Diffusion 3's transformer is called."""
        towards_noise: Tensor = self.model(
            latent,
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=1000 * (1 - time),
            return_dict=False,
        )[0]
        return -towards_noise


class Packed(Denoiser):
    """A flow whose model takes 2 x 2 places of the latent for one."""

    def forward(
        self, latent: Tensor, time: Tensor, context: Tensor, pooled: Tensor, guidance: Tensor | None = None
    ) -> Tensor:
        """As Flux' transformer is called."""
        batch, channels, rows, columns = latent.shape
        high, wide = rows // 2, columns // 2
        patches = latent.view(batch, channels, high, 2, wide, 2).permute(0, 2, 4, 1, 3, 5)
        zeros = torch.zeros(high, wide)
        places = torch.stack([zeros, zeros + torch.arange(high)[:, None], zeros + torch.arange(wide)], -1)
        towards_noise: Tensor = self.model(
            hidden_states=patches.reshape(batch, high * wide, 4 * channels),
            timestep=1 - time,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=context,
            txt_ids=torch.zeros(context.shape[1], 3),
            img_ids=places.reshape(high * wide, 3),
            return_dict=False,
        )[0]
        back = towards_noise.view(batch, high, wide, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return -back.reshape(batch, channels, rows, columns)


class Reader(nn.Module):
    """Text encoders, called with the token ids [batch, tokens] of each. `empty` are the first tokenizer's of no text."""

    empty: Tensor

    def __init__(self, encoders: list[nn.Module], empty: Tensor, pipeline: Pipeline) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.register_buffer("empty", empty, persistent=False)
        self.blank = bool(pipeline.index.get("force_zeros_for_empty_prompt", True))
        self.width = int(pipeline.denoiser.get("joint_attention_dim") or 0)
        self.rest = int(pipeline.layout.lengths[-1] or 0)


class OneReader(Reader):
    """The last hidden states of one."""

    def forward(self, text: Tensor) -> Tensor:
        """As Stable Diffusion reads."""
        states: Tensor = self.encoders[0](text)[0]
        return states


class TwoReaders(Reader):
    """Of two: the hidden states before the last, side by side, and the second one's summary. An empty prompt is zeros, where it is said so."""

    def forward(self, text: Tensor, text_2: Tensor) -> tuple[Tensor, Tensor]:
        """As Stable Diffusion XL reads."""
        first, second = _read(self.encoders[0], text), _read(self.encoders[1], text_2)
        context, pooled = torch.cat([first[1], second[1]], -1), second[0]
        if not self.blank:
            return context, pooled
        said = (text != self.empty).any(-1, keepdim=True).to(context.dtype)
        return context * said[..., None], pooled * said


class ThreeReaders(Reader):
    """Of two side by side, then of the third behind them, or of zeros where there is none; and both first summaries."""

    def forward(self, text: Tensor, text_2: Tensor, text_3: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As Stable Diffusion 3 reads."""
        first, second = _read(self.encoders[0], text), _read(self.encoders[1], text_2)
        both = torch.cat([first[1], second[1]], -1)
        both = functional.pad(both, (0, self.width - both.shape[-1]))
        behind = (
            torch.zeros_like(both[:, :1]).expand(-1, self.rest, -1)
            if text_3 is None
            else self.encoders[2](text_3)[0]
        )
        return torch.cat([both, behind], 1), torch.cat([first[0], second[0]], -1)


class SummaryAndStates(Reader):
    """Of two: the second one's states, and the first one's summary."""

    def forward(self, text: Tensor, text_2: Tensor) -> tuple[Tensor, Tensor]:
        """As Flux reads."""
        return self.encoders[1](text_2)[0], self.encoders[0](text).pooler_output


class Decode(nn.Module):
    """Latent -> picture in [0, 1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale, self.shift = float(vae.config.scaling_factor), float(vae.config.shift_factor or 0.0)

    def forward(self, latent: Tensor) -> Tensor:
        """Of any height and width."""
        picture: Tensor = self.vae.decode(latent / self.scale + self.shift, return_dict=False)[0]
        return (picture / 2 + 0.5).clamp(0, 1)


class Encode(Decode):
    """Picture in [0, 1] -> the mean of its latents, as the denoiser takes it."""

    def forward(self, picture: Tensor) -> Tensor:
        """Of any height and width that the vae halves evenly."""
        mean: Tensor = self.vae.encode(2 * picture - 1).latent_dist.mean
        return (mean - self.shift) * self.scale


DENOISERS: Final = {"sd": Reading, "sdxl": Sized, "sd3": Joint, "flux": Packed, "ddpm": Plain}
READERS: Final = {"sd": OneReader, "sdxl": TwoReaders, "sd3": ThreeReaders, "flux": SummaryAndStates}


def _read(encoder: nn.Module, text: Tensor) -> tuple[Tensor, Tensor]:
    """Summary [batch, width] and the hidden states before the last."""
    read = encoder(text, output_hidden_states=True)
    return read[0], read.hidden_states[-2]


def load(folder: Path, kind: str) -> Any:
    """A part of a pipeline in float32, in evaluation mode. Of two sets of weights, the one that is not rounded."""
    variant = None if any("." not in each.stem for each in folder.glob("*.safetensors")) else HALF
    settings: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "variant": variant}
    if hasattr(TRANSFORMERS, kind):
        # Not the fused attention: it exports to what checks for rows without any token, at every layer.
        settings |= {"dtype": torch.float32, "attn_implementation": "eager"}
        return getattr(TRANSFORMERS, kind).from_pretrained(folder, **settings).eval()
    return getattr(DIFFUSERS, kind).from_pretrained(folder, torch_dtype=torch.float32, **settings).eval()


def denoise(path: Path) -> nn.Module:
    """The graph `denoise` of a directory."""
    pipeline = read_pipeline(path)
    folder, kind = pipeline.layout.denoiser
    return DENOISERS[pipeline.layout.name](load(path / folder, kind))


def condition(path: Path) -> nn.Module:
    """The graph `condition` of a directory."""
    pipeline = read_pipeline(path)
    empty = torch.tensor(read_words(pipeline).ids("")["text"])
    encoders = [load(path / folder, kind) for folder, kind in pipeline.encoders]
    return READERS[pipeline.layout.name](encoders, empty, pipeline)


def decode(path: Path) -> nn.Module:
    """The graph `decode` of a directory."""
    return Decode(load(path / VAE, "AutoencoderKL"))


def encode(path: Path) -> nn.Module:
    """The graph `encode` of a directory."""
    return Encode(load(path / VAE, "AutoencoderKL"))
