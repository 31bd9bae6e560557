"""What sets the families of pipelines apart, as a table: their parts, what their denoisers take, how they are usually asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Name: TypeAlias = Literal["sd", "sdxl", "sd3", "flux", "ddpm"]

CLIP: Final = "CLIPTextModel"
PROJECTED: Final = "CLIPTextModelWithProjection"
T5: Final = "T5EncoderModel"


@dataclass(frozen=True)
class Layout:
    """One family.

    `denoiser` is its folder and its class. `encoders` are the classes of the text encoders, in order; their prompts have `lengths`
    tokens (None: as many as their tokenizer says). `takes` are roles of the graph `denoise` beside latent and time. `patch`: places of
    the latent that the denoiser takes for one. `steps` and `guidance` are what its pictures are usually asked with.
    """

    name: Name
    title: str
    denoiser: tuple[str, str]
    encoders: tuple[str, ...] = ()
    lengths: tuple[int | None, ...] = ()
    takes: tuple[str, ...] = ()
    flow: bool = False
    patch: int = 1
    steps: int = 50
    guidance: float = 1.0


LAYOUTS: Final[Mapping[Name, Layout]] = {
    each.name: each
    for each in (
        Layout(
            "sd", "Stable Diffusion", ("unet", "UNet2DConditionModel"), (CLIP,), (None,), ("context",),
            steps=25, guidance=7.5,
        ),
        Layout(
            "sdxl", "Stable Diffusion XL", ("unet", "UNet2DConditionModel"), (CLIP, PROJECTED), (None, None),
            ("context", "pooled", "size"), steps=30, guidance=5.0,
        ),
        Layout(
            "sd3", "Stable Diffusion 3", ("transformer", "SD3Transformer2DModel"), (PROJECTED, PROJECTED, T5), (None, None, 256),
            ("context", "pooled"), flow=True, steps=28, guidance=7.0,
        ),
        Layout(
            "flux", "Flux", ("transformer", "FluxTransformer2DModel"), (CLIP, T5), (None, 512), ("context", "pooled"),
            flow=True, patch=2, steps=28, guidance=3.5,
        ),
        Layout("ddpm", "DDPM", ("unet", "UNet2DModel")),
    )
}  # fmt: skip
