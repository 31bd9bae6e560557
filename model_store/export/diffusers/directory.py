"""A local diffusers directory: what its JSON files say, which family it is of, and what is refused unread.

Knows file names and fields, no tensors; imports neither torch nor diffusers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_store.export.diffusers.layouts import LAYOUTS, T5, Layout
from model_store.export.errors import DraftError
from model_store.export.hf.directory import Fields, check_weights, read_json

INDEX: Final = "model_index.json"
VAE: Final = "vae"
SCHEDULER: Final = "scheduler"
# What a UNet may take beside what its family does. Each is None, or the default, where it does not.
_EXTRAS: Final = (
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "encoder_hid_dim",
    "time_cond_proj_dim",
)


@dataclass(frozen=True)
class Pipeline:
    """A directory and the configurations of its parts, by folder."""

    path: Path
    index: Fields
    configs: Mapping[str, Fields]
    layout: Layout

    @property
    def denoiser(self) -> Fields:
        """Configuration of what denoises."""
        return self.configs[self.layout.denoiser[0]]

    @property
    def encoders(self) -> tuple[tuple[str, str], ...]:
        """Folder and class of each text encoder that is there."""
        return tuple(
            (folder, kind)
            for folder, kind in zip(numbered("text_encoder"), self.layout.encoders, strict=False)
            if folder in self.configs
        )

    @property
    def reduction(self) -> int:
        """Pixels a side for one place of the latent."""
        return 2 ** (len(self.configs[VAE]["block_out_channels"]) - 1) if VAE in self.configs else 1

    @property
    def multiple(self) -> int:
        """What a picture's sides must be multiples of."""
        halvings = len(self.denoiser["block_out_channels"]) - 1 if self.layout.denoiser[0] == "unet" else 0
        patch = int(self.denoiser.get("patch_size", 1)) * self.layout.patch
        return self.reduction * patch * int(2**halvings)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return int(
            self.configs[VAE]["latent_channels"] if VAE in self.configs else self.denoiser["in_channels"]
        )


def numbered(name: str) -> tuple[str, str, str]:
    """Folders of the first, second and third of their kind."""
    return name, f"{name}_2", f"{name}_3"


def read_pipeline(path: Path) -> Pipeline:
    """Read the configuration files. Raises DraftError for what is no pipeline, needs its own code, is pickled, or is of no known family."""
    if not path.is_dir():
        raise DraftError(
            f"{path.name!r} is no folder: give the local directory of a pipeline, nothing is downloaded"
        )
    if not (path / INDEX).is_file():
        raise DraftError(f"there is no {INDEX}: this is no diffusers directory")
    index = read_json(path / INDEX)
    kinds = _kinds(index)
    layout = _layout(path, kinds)
    folders = [
        layout.denoiser[0],
        *numbered("text_encoder")[: len(layout.encoders)],
        *([VAE] if layout.encoders else []),
    ]
    configs = {folder: _config(path, folder) for folder in folders if folder in kinds}
    if SCHEDULER not in kinds:
        raise DraftError(f"{INDEX} names no scheduler")
    scheduler = read_json(path / SCHEDULER / "scheduler_config.json")
    configs[SCHEDULER] = {**scheduler, "_class_name": kinds[SCHEDULER]}
    found = Pipeline(path, index, configs, layout)
    _check_parts(found, kinds)
    _check_denoiser(found)
    for folder in configs.keys() - {SCHEDULER}:
        check_weights(path / folder)
    return found


def _kinds(index: Fields) -> dict[str, str]:
    """Class of each part. Raises DraftError for one whose code is in the directory."""
    found = {}
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value):
            library, kind = value
            if library in {"diffusers", "transformers"}:
                found[name] = kind
            elif name != "safety_checker":  # a pipeline's own class, and nothing that makes pictures
                raise DraftError(f"the part {name} needs code of its own ({library}), which is never run")
    return found


def _layout(path: Path, kinds: Mapping[str, str]) -> Layout:
    part = next((name for name in ("unet", "transformer") if name in kinds), None)
    if part is None:
        raise DraftError(f"{INDEX} names neither a unet nor a transformer")
    fitting = [each for each in LAYOUTS.values() if each.denoiser == (part, kinds[part])]
    if len(fitting) > 1:  # of a UNet's two families, the larger one also takes a size
        added = _config(path, part).get("addition_embed_type")
        fitting = {None: [LAYOUTS["sd"]], "text_time": [LAYOUTS["sdxl"]]}.get(added, [])
    if not fitting:
        known = ", ".join(each.title for each in LAYOUTS.values())
        raise DraftError(f"pipelines around a {kinds[part]} like this are not exported; those of {known} are")
    return fitting[0]


def _config(path: Path, folder: str) -> Fields:
    if not (path / folder / "config.json").is_file():
        raise DraftError(f"there is no {folder}/config.json")
    return read_json(path / folder / "config.json")


def _check_parts(pipeline: Pipeline, kinds: Mapping[str, str]) -> None:
    """All parts are there, of the classes that the family has. T5 may be missing: Stable Diffusion 3 does without."""
    wanted = dict(zip(numbered("text_encoder"), pipeline.layout.encoders, strict=False))
    if pipeline.layout.encoders:
        wanted[VAE] = "AutoencoderKL"
    for folder, kind in wanted.items():
        found = kinds.get(folder)
        if found is None and kind == T5 and pipeline.layout.name == "sd3":
            continue
        if found != kind:
            raise DraftError(f"{pipeline.layout.title} has a {kind} as its {folder}, not {found or 'none'}")


def _check_denoiser(pipeline: Pipeline) -> None:
    config, layout = pipeline.denoiser, pipeline.layout
    extras = [
        name
        for name in _EXTRAS
        if config.get(name) is not None and layout.encoders and layout.denoiser[0] == "unet"
    ]
    if extras:
        raise DraftError(f"the unet takes more than {layout.title} gives it: {', '.join(extras)}")
    taken = int(config["in_channels"])
    if taken != pipeline.channels * layout.patch**2:
        raise DraftError(
            f"the {layout.denoiser[0]} takes {taken} channels where the latent has {pipeline.channels * layout.patch**2}: "
            "pipelines that also read a picture are not exported"
        )
    if any(pipeline.configs[folder].get("use_attention_mask") for folder, _ in pipeline.encoders):
        raise DraftError(
            "the text encoder does not read what a prompt is padded with (use_attention_mask), which is not exported"
        )
    if any(pipeline.configs.get(VAE, {}).get(name) is not None for name in ("latents_mean", "latents_std")):
        raise DraftError("the vae scales each channel of the latent by itself, which is not exported")
