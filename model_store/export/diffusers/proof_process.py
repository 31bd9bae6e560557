"""The fresh process that makes one picture by diffusers' own pipeline and by a package's graphs, from the same noise.

Run as `python -m model_store.export.diffusers.proof_process FOLDER`; `proof` says what lies there. Graphs are stepped by diffusers'
scheduler of what the manifest says, whose numbers a server's solvers are tested against: so the manifest is compared as well.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from model_store.export import neighbours
from model_store.export.cases import Array
from model_store.export.diffusers import modules
from model_store.export.diffusers.directory import SCHEDULER, VAE, Pipeline, read_pipeline
from model_store.export.diffusers.layouts import T5
from model_store.export.diffusers.modules import DIFFUSERS, TRANSFORMERS
from model_store.export.diffusers.proof import Job, read_job, write_figures
from model_store.export.diffusers.words import Words
from model_store.export.hf import decoder_process
from model_store.export.parity import Figure
from model_store.export.stored import round_weights
from model_store.imaging import Denoise, Image
from model_store.package import Package
from model_store.session import Session, open_graph
from model_store.verify import verify

STEPS: Final = 4
PROMPT: Final = "a cat"
SEED: Final = 0
PICTURE: Final = 1e-2
"""Largest error of a colour, of 1."""

ROUNDING: Final = 2e-2
"""Largest root mean square of what rounded weights change of a colour, of 1."""

TOGETHER: Final = 3

_PIPELINES: Final = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
_SCHEDULERS: Final = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm": "DPMSolverMultistepScheduler",
}
_FLOWS: Final = {"euler": "FlowMatchEulerDiscreteScheduler", "heun": "FlowMatchHeunDiscreteScheduler"}
_OWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "sd": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    "sdxl": {"add_watermarker": False},
    "sd3": {"text_encoder_3": None, "tokenizer_3": None},
}
"""Parts and settings that are not of a directory."""


def main(arguments: Sequence[str]) -> int:
    """Run the job of a folder; a failure becomes `failure.json` there and exit status 1."""
    return decoder_process.main(arguments, work)


def work(folder: Path, stage: Callable[[str], None]) -> None:
    """Do the job in `folder`: write the figures."""
    job = read_job(folder)
    manifest = verify(job.package)
    package = Package(job.package, manifest)
    image = manifest.image
    if image is None or image.denoise is None:
        raise ValueError("the package makes no pictures in steps")
    stage("make a picture with diffusers")
    right, rounded = _theirs(job, image, image.denoise)
    stage("make the same picture with the graphs")
    sessions = {name: open_graph(package, name, threads=0, replay=False) for name in manifest.graphs}
    words = Words(image.prompt, {each.tokenizer: package.read(each.tokenizer) for each in image.prompt})
    found = paint(sessions, image, image.denoise, words)
    stage("run rows alone and among others")
    graph = sessions["denoise"]
    apart = neighbours.dependence(graph, _rows(graph, image), graph.outputs)
    figures = [
        Figure("denoise", f"picture after {STEPS} steps", 1, float(np.abs(found - rounded).max()), PICTURE),
        Figure("denoise", "rows alone and among others", TOGETHER, apart, neighbours.LIMIT),
    ]
    if job.rounded:
        cost = float(np.sqrt(np.square(right - rounded).mean()))
        figures.append(Figure("denoise", "picture by rounded weights (mean square)", 1, cost, ROUNDING))
    write_figures(folder, figures)


def noise_of(image: Image, denoise: Denoise, channels: int) -> torch.Tensor:
    """What both begin with: [1, channels, height, width]."""
    shape = (1, channels, image.height // denoise.reduction, image.width // denoise.reduction)
    return torch.from_numpy(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))


# -- diffusers' own ---------------------------------------------------------------------------------------------------


def _theirs(job: Job, image: Image, denoise: Denoise) -> tuple[Array, Array]:
    """A picture [channels, height, width] by the pipeline, and by the same one with the weights that the package has."""
    pipeline = read_pipeline(job.directory)
    scheduler = _own(pipeline) if job.exact else scheduler_of(denoise)
    folder, denoiser = pipeline.layout.denoiser
    parts = {folder: modules.load(job.directory / folder, denoiser)}
    parts |= {name: modules.load(job.directory / name, each) for name, each in pipeline.encoders}
    if VAE in pipeline.configs:
        parts[VAE] = modules.load(job.directory / VAE, "AutoencoderKL")
    noise = noise_of(image, denoise, pipeline.channels)
    right = _run(pipeline, parts, scheduler, noise, image, denoise)
    if not job.rounded:
        return right, right
    for part in parts.values():
        round_weights(part)
    return right, _run(pipeline, parts, scheduler, noise, image, denoise)


def _own(pipeline: Pipeline) -> Any:
    kind = getattr(DIFFUSERS, str(pipeline.configs[SCHEDULER]["_class_name"]))
    return kind.from_pretrained(pipeline.path / SCHEDULER, local_files_only=True)


def _run(
    pipeline: Pipeline,
    parts: Mapping[str, nn.Module],
    scheduler: Any,
    noise: torch.Tensor,
    image: Image,
    denoise: Denoise,
) -> Array:
    name = pipeline.layout.name
    if name == "ddpm":
        return _unconditional(
            parts[pipeline.layout.denoiser[0]], scheduler, noise, labelled=bool(image.classes)
        )
    tokenizers = {
        folder.replace("text_encoder", "tokenizer"): getattr(
            TRANSFORMERS, "T5Tokenizer" if kind == T5 else "CLIPTokenizer"
        ).from_pretrained(pipeline.path / folder.replace("text_encoder", "tokenizer"), local_files_only=True)
        for folder, kind in pipeline.encoders
    }
    extra = dict(_OWN.get(name, {}))
    if name == "sdxl":
        extra["force_zeros_for_empty_prompt"] = bool(pipeline.index.get("force_zeros_for_empty_prompt", True))
    made = getattr(DIFFUSERS, _PIPELINES[name])(**extra | {**parts, **tokenizers, SCHEDULER: scheduler})
    made.set_progress_bar_config(disable=True)
    if name == "flux":
        noise = made._pack_latents(noise, *noise.shape)  # noqa: SLF001 - as the pipeline wants to be given it
    made_picture = made(
        PROMPT,
        height=image.height,
        width=image.width,
        num_inference_steps=STEPS,
        guidance_scale=denoise.guidance,
        latents=noise,
        output_type="pt",
    )
    found: Array = made_picture.images[0].numpy()
    return found


def _unconditional(model: nn.Module, scheduler: Any, noise: torch.Tensor, *, labelled: bool) -> Array:
    """The loop of diffusers' DDPM and DDIM pipelines, which take no noise of others."""
    scheduler.set_timesteps(STEPS)
    latent = noise * scheduler.init_noise_sigma
    labels = torch.zeros(1, dtype=torch.int64) if labelled else None
    with torch.no_grad():
        for moment in scheduler.timesteps:
            seen = scheduler.scale_model_input(latent, moment)
            latent = scheduler.step(model(seen, moment, labels).sample, moment, latent).prev_sample
    found: Array = (latent[0] / 2 + 0.5).clamp(0, 1).numpy()
    return found


# -- the package's ----------------------------------------------------------------------------------------------------


def scheduler_of(denoise: Denoise) -> Any:
    """Diffusers' scheduler of what a manifest says, for its first solver."""
    betas, solver = denoise.betas, denoise.solvers[0]
    settings: dict[str, Any] = {"shift": denoise.shift}
    if betas:
        settings = {
            "num_train_timesteps": betas.trained,
            "beta_start": betas.start,
            "beta_end": betas.end,
            "beta_schedule": betas.schedule,
            "prediction_type": denoise.prediction,
            "timestep_spacing": denoise.spacing,
            "steps_offset": denoise.offset,
            "rescale_betas_zero_snr": betas.zero_snr,
        }
    if solver == "ddim":
        settings |= {
            "set_alpha_to_one": denoise.to_clean,
            "clip_sample": denoise.clip is not None,
            "clip_sample_range": denoise.clip or 1.0,
        }
    return getattr(DIFFUSERS, (_SCHEDULERS if betas else _FLOWS)[solver])(**settings)


def paint(sessions: Mapping[str, Session], image: Image, denoise: Denoise, words: Words) -> Array:
    """The picture [channels, height, width] by the graphs, stepped by diffusers' scheduler of what the manifest says."""
    graph, scheduler, flow = sessions["denoise"], scheduler_of(denoise), denoise.betas is None
    if denoise.spacing == "even":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS))
    else:
        scheduler.set_timesteps(STEPS)
    paired = denoise.guidance > 1 and "guidance" not in graph.inputs
    given = _given(sessions, image, denoise, words, [PROMPT, ""] if paired else [PROMPT])
    latent = noise_of(image, denoise, _channels(graph)) * getattr(scheduler, "init_noise_sigma", 1.0)
    for moment in scheduler.timesteps:
        seen = latent if flow else scheduler.scale_model_input(latent, moment)
        time = 1 - float(moment) / 1000 if flow else float(moment)
        rows = 2 if paired else 1
        feeds = {"latent": np.repeat(seen.numpy(), rows, 0), "time": np.full(rows, time, np.float32)} | given
        found = torch.from_numpy(graph.run({name: feeds[name] for name in graph.inputs})[0])
        output = found[1:] + denoise.guidance * (found[:1] - found[1:]) if paired else found
        latent = scheduler.step(-output if flow else output, moment, latent).prev_sample
    pixels = latent.numpy() / 2 + 0.5
    if "decode" in sessions:
        [pixels] = sessions["decode"].run({"latent": latent.numpy()}, ["output"])
    picture: Array = np.clip(pixels[0], 0, 1)
    return picture


def _given(
    sessions: Mapping[str, Session], image: Image, denoise: Denoise, words: Words, texts: Sequence[str]
) -> dict[str, Array]:
    """Conditions of a row for each text, by role."""
    rows = len(texts)
    given: dict[str, Array] = {
        "size": np.tile(np.array([image.height, image.width], np.float32), (rows, 1)),
        "guidance": np.full(rows, denoise.guidance, np.float32),
        "label": np.zeros(rows, np.int64),
    }
    if "condition" in sessions:
        read = [words.ids(text) for text in texts]
        ids = {role: np.array([each[role] for each in read]) for role in read[0]}
        graph = sessions["condition"]
        given |= dict(zip(graph.outputs, graph.run(ids), strict=True))
    return given


def _channels(graph: Session) -> int:
    return int(graph.declares()[0]["latent"][1][1])  # type: ignore[arg-type]  # the exporter's own graph


def _rows(graph: Session, image: Image) -> dict[str, Array]:
    """Inputs of some rows that have nothing in common."""
    generator, feeds = np.random.default_rng(SEED), {}
    reduction = image.denoise.reduction if image.denoise else 1
    free: dict[object, int] = {
        "batch": TOGETHER,
        "height": image.height // reduction,
        "width": image.width // reduction,
    }
    for name, (dtype, shape) in graph.declares()[0].items():
        sizes = [size if isinstance(size, int) else free[size] for size in shape]
        drawn = np.zeros(sizes) if dtype == "int64" else generator.standard_normal(sizes)
        feeds[name] = drawn.astype(dtype)
    return feeds | {"time": np.linspace(0.1, 0.9, TOGETHER, dtype=np.float32)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
