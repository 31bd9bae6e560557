"""Each layout's pipeline, exported and served: what a server draws is what diffusers draws of the same noise."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Draw
from deployments.metrics import Metrics
from deployments.model import FlowModel, open_model
from model_store.export.diffusers.export import export_pipeline
from model_store.export.diffusers.options import Options
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.imaging import Denoise
from model_store.manifest import Manifest
from model_store.session import Array, Device
from model_store.store import Store
from tests.model_store.export.diffusers.tiny import diffusers, save

pytestmark = pytest.mark.usefixtures("inside")

STEPS = 5
ASKED = {"steps": STEPS, "seed": 5}


@dataclasses.dataclass
class Exported:
    """A layout's directory and what came of it."""

    directory: Path
    store: Path
    figures: dict[str, Figure]
    notes: list[str]
    manifest: Manifest

    @property
    def denoise(self) -> Denoise:
        assert self.manifest.image is not None
        assert self.manifest.image.denoise is not None
        return self.manifest.image.denoise

    def draw(self, **asked: Any) -> tuple[torch.Tensor, Array]:
        """The noise of a request and the picture that is served, its values in [0, 1]."""
        package = Store(str(self.store)).open("made")
        model = open_model(package, HostConfig(device="cpu"), Device("cpu"), Metrics(CollectorRegistry()))
        assert isinstance(model, FlowModel)
        works = model.requests.draw(Draw("made", **asked)).works
        latent = asyncio.run(_finished(model, works))
        return torch.from_numpy(works[0].noise())[None], model.requests._developing.pixels(latent)


async def _finished(model: FlowModel, works: Any) -> Array:
    ticket, _ = model.engine.submit(works, costs=[work.cost for work in works])
    while model.engine.scheduler.waiting or model.engine.scheduler.live:
        model.engine.step()
        await asyncio.sleep(0)
    return (await ticket.next()).latent


def export(layout: str, folder: Path, options: dict[str, Any] | None = None, **settings: Any) -> Exported:
    directory, store = save(layout, folder / "model", **settings), folder / "store"
    figures, notes = list[Figure](), list[str]()
    made = Options("made", **options or {})
    manifest = export_pipeline(directory, str(store), made, Witness(figure=figures.append), notes.append)
    return Exported(directory, store, {each.output: each for each in figures}, notes, manifest)


def drawn(made: Exported, noise: torch.Tensor, scheduler: Any = None, **asked: Any) -> Array:
    """The same picture by diffusers, with its own scheduler or with what stands in for it."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(made.directory)
    if scheduler:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    guidance = made.denoise.guidance
    picture = pipeline(
        "a cat", latents=noise, num_inference_steps=STEPS, guidance_scale=guidance, output_type="pt", **asked
    )
    found: Array = picture.images[0].numpy()
    return found


def assert_same(first: Array, second: Array, most: float = 1e-4) -> None:
    """No colour, of 1, differs by more."""
    assert first.shape == second.shape
    assert second.std() > 1e-3, "it shows nothing"
    error = float(np.abs(first - second).max())
    assert error < most, f"the largest error is {error:.2g}"


def test_stable_diffusion_of_two_sizes(tmp_path: Path) -> None:
    made = export("sd", tmp_path, {"sizes": ("16x24",)})
    assert made.notes == ["PNDMScheduler is not served: the solver dpm stands in for it"]
    assert set(made.manifest.graphs) == {"denoise", "condition", "decode", "encode"}
    assert made.figures["picture after 4 steps"].error < 1e-4
    for width, height in ((16, 16), (16, 24)):
        noise, picture = made.draw(prompt="a cat", size=(width, height), **ASKED)
        expected = drawn(made, noise, diffusers.DPMSolverMultistepScheduler, width=width, height=height)
        assert_same(picture, expected)


def test_stable_diffusion_xl(tmp_path: Path) -> None:
    made = export("sdxl", tmp_path)
    assert not made.notes
    noise, picture = made.draw(prompt="a cat", **ASKED)
    assert_same(picture, drawn(made, noise))


def test_stable_diffusion_3(tmp_path: Path) -> None:
    made = export("sd3", tmp_path)
    noise, picture = made.draw(prompt="a cat", **ASKED)
    assert_same(picture, drawn(made, noise))


def test_flux_of_two_sizes(tmp_path: Path) -> None:
    made = export("flux", tmp_path, {"sizes": ("96x64",)})
    assert made.notes == ["pictures of every size are shifted towards noise as those of 128x128 are"]
    noise, picture = made.draw(prompt="a cat", **ASKED)
    packed = diffusers.FluxPipeline._pack_latents(noise, *noise.shape)
    assert_same(picture, drawn(made, packed, width=128, height=128))


def test_ddpm_of_classes_in_half_the_bytes(tmp_path: Path) -> None:
    made = export("ddpm", tmp_path, {"precision": "fp16"}, num_class_embeds=3)
    assert made.notes == ["DDPMScheduler is not served: the solver ddim stands in for it"]
    assert 0 < made.figures["picture by rounded weights (mean square)"].error < 1e-2
    noise, picture = made.draw(prompt="1", **ASKED)
    pipeline = diffusers.DDPMPipeline.from_pretrained(made.directory)
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(STEPS)
    latent = noise
    with torch.no_grad():
        for time in scheduler.timesteps:
            output = pipeline.unet(latent, time, torch.tensor([1])).sample
            latent = scheduler.step(output, time, latent).prev_sample
    assert_same(picture, (latent[0] / 2 + 0.5).clamp(0, 1).numpy(), 1e-2)
