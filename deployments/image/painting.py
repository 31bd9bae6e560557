"""What one picture asks of a model that makes pictures in steps: its plan, its noise, its conditions, how much it is guided.

Knows no graph and no batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from deployments.errors import BadRequest
from deployments.image import grids, solvers
from deployments.image.choices import check_size
from deployments.image.solvers import Plan
from deployments.randomness import SEEDS, noise
from deployments.rows import Row
from model_store.imaging import Denoise
from model_store.manifest import Manifest
from model_store.session import Array

DENOISE: Final = "denoise"
CONDITION: Final = "condition"
# Rounds of each step back: with three, the steps forth lead to the picture again.
_ROUNDS: Final = 3


@dataclass(eq=False, slots=True)
class Condition:
    """What the pictures of a request show, by role, without a batch dimension: one object for all of them.

    `ready` is what the graph `denoise` takes; its program makes that of `feeds` before the first step.
    """

    feeds: Mapping[str, Array]
    ready: Mapping[str, Array] | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """A picture to begin from. `made` [1, height, width] is 1 where the latent is to be made up; None: everywhere."""

    latent: Array
    strength: float = 1.0  # share of the way that is gone again
    made: Array | None = None


@dataclass(frozen=True, slots=True)
class Painting:
    """One picture to be made. `shape` is its latent's, `pixels` are its own."""

    plan: Plan
    shape: tuple[int, ...]
    pixels: int
    condition: Condition
    guidance: float = 1.0
    without: Condition | None = None  # what it is guided away from; None: it is not guided
    seed: int = 0
    place: int = 0  # among its request's pictures
    original: Original | None = None
    given: Array | None = None  # the latent to begin with, instead of noise
    skipped: int = 0  # steps at the beginning that it has no need of
    previews: frozenset[int] = frozenset()  # steps, counted from 1, after which to show what is foretold

    @property
    def first(self) -> int:
        """The stage to begin at."""
        return next(i for i, stage in enumerate(self.plan.stages) if stage.step >= self.skipped)

    @property
    def pixel_steps(self) -> int:
        """Pixels of one evaluation, the second one of a guided picture among them."""
        return self.pixels * (1 if self.without is None else 2)

    @property
    def cost(self) -> int:
        """Pixel-steps of all evaluations."""
        return self.pixel_steps * (len(self.plan.stages) - self.first)

    @property
    def steps(self) -> int:
        """Steps of the whole way, those that are skipped among them."""
        return self.plan.stages[-1].step + 1

    def begin(self) -> Array:
        """The latent of the first stage: a function of the seed alone."""
        if self.given is not None:
            return self.given
        if self.original is None:
            return np.float32(self.plan.start) * self.noise()
        return self.noised(self.original, self.first)

    def noise(self) -> Array:
        """What the seed draws, of the latent's shape."""
        return noise(self.seed, 0, int(np.prod(self.shape))).reshape(self.shape)

    def noised(self, original: Original, stage: int) -> Array:
        """The original as it would be at that stage: behind the last one as it is."""
        if stage == len(self.plan.stages):
            return original.latent
        signal, rest = self.plan.stages[stage].noised
        mixed: Array = np.float32(signal) * original.latent + np.float32(rest) * self.noise()
        return mixed

    def kept(self, latent: Array, stage: int) -> Array:
        """The latent with what is not to be made up as the original has it there."""
        original = self.original
        if original is None or original.made is None:
            return latent
        between = (
            0 < stage < len(self.plan.stages)
            and self.plan.stages[stage].step == self.plan.stages[stage - 1].step
        )
        return latent if between else np.where(original.made > 0, latent, self.noised(original, stage))


@dataclass(frozen=True, slots=True)
class Painted:
    """A picture's latent after so many of its steps, or what these foretell of it."""

    place: int
    step: int
    latent: Array
    final: bool


PaintingRow = Row[Painting, Painted]


class Painter:
    """Prepares the pictures of one model."""

    def __init__(self, manifest: Manifest) -> None:
        image = manifest.image
        if image is None or image.denoise is None:
            raise ValueError(f"{manifest.name} does not make pictures in steps")
        self.image, self.denoise = image, image.denoise
        latent = next(each for each in manifest.graphs[DENOISE].inputs if each.role == "latent")
        each = self.denoise.reduction
        self.latent = (int(latent.shape[1]), image.height // each, image.width // each)
        self.distilled = "guidance" in roles_taken(manifest)  # the model guides itself

    def paintings(
        self,
        condition: Condition,
        without: Condition | None = None,
        *,
        n: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        size: tuple[int, int] | None = None,
        previews: int = 0,
        original: Original | None = None,
    ) -> list[Painting]:
        """One for each picture, of consecutive seeds.

        `without` is needed where there is guidance; `previews` are spread over the steps that are taken. Raises BadRequest.
        """
        scale = self.guidance(guidance)
        plan = plan_of(self.denoise, self._solver(solver), self._steps(steps))
        width, height = self.size(size)
        each = self.denoise.reduction
        count = plan.stages[-1].step + 1
        # At least one step is taken: at none of them the picture would come back as it was sent.
        skipped = 0 if original is None else count - max(1, round(count * original.strength))
        return [
            Painting(
                plan,
                (self.latent[0], height // each, width // each),
                width * height,
                condition,
                scale,
                None if scale == 1 or self.distilled else without,
                (seed + place) % SEEDS,
                place,
                original=original,
                skipped=skipped,
                previews=frozenset(skipped + step for step in spread(previews, count - skipped)),
            )
            for place in range(n)
        ]

    def limits(self) -> dict[str, object]:
        """What may be asked of the model, as its card shows it."""
        part = self.denoise
        return {
            "sizes": [f"{width}x{height}" for width, height in self._sizes()],
            "steps": part.most_steps,
            "guidance_scale": part.most_guidance,
            "solvers": list(part.solvers),
        }

    def _sizes(self) -> list[tuple[int, int]]:
        return [(self.image.width, self.image.height), *self.denoise.sizes]

    def _steps(self, steps: int | None) -> int:
        most = self.denoise.most_steps
        steps = self.denoise.steps if steps is None else steps
        if not 1 <= steps <= most:
            raise BadRequest(f"This model takes 1 to {most} steps.", code="invalid_steps", param="steps")
        return steps

    def guidance(self, guidance: float | None) -> float:
        """The scale that is asked for, or the model's own. Raises BadRequest."""
        most = self.denoise.most_guidance
        guidance = self.denoise.guidance if guidance is None else guidance
        if not 1 <= guidance <= most:  # NaN is not either
            what = "cannot be guided: leave it at 1" if most == 1 else f"takes a guidance of 1 to {most:g}"
            raise BadRequest(f"This model {what}.", code="invalid_guidance", param="guidance_scale")
        return guidance

    def _solver(self, solver: str | None) -> str:
        if solver is not None and solver not in self.denoise.solvers:
            known = ", ".join(self.denoise.solvers)
            raise BadRequest(f"This model is solved by {known}.", code="invalid_solver", param="solver")
        return solver or self.denoise.solvers[0]

    def size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Width and height that are asked for, or the model's own. Raises BadRequest."""
        sizes = self._sizes()
        check_size(size, sizes)
        return size or sizes[0]


def roles_taken(manifest: Manifest) -> set[str]:
    """Roles of what the graphs take that are run for each picture or for each request."""
    graphs = (manifest.graphs[name] for name in (DENOISE, CONDITION) if name in manifest.graphs)
    return {each.role for graph in graphs for each in graph.inputs}


@lru_cache(maxsize=256)
def plan_of(denoise: Denoise, solver: str, steps: int) -> Plan:
    """The stages of a model's picture."""
    betas = denoise.betas
    if betas is None:
        levels = _levels(denoise, steps)
        return solvers.flow_heun(levels) if solver == "heun" else solvers.flow_euler(levels)
    alphas = grids.cumulative_alphas(
        betas.schedule, betas.start, betas.end, betas.trained, zero_snr=betas.zero_snr
    )
    times: grids.Spacing = denoise.spacing  # type: ignore[assignment]  # the manifest's own rule
    prediction, offset = denoise.prediction, denoise.offset
    if solver == "ddim":
        return solvers.ddim(
            alphas,
            steps,
            prediction,
            spacing=times,
            offset=offset,
            to_clean=denoise.to_clean,
            clip=denoise.clip,
        )
    solve = solvers.dpm if solver == "dpm" else solvers.euler
    return solve(alphas, steps, prediction, spacing=times, offset=offset)


def plan_back(denoise: Denoise) -> Plan:
    """The stages of a picture's way back to its noise, over the levels of the model's own steps. Raises BadRequest."""
    if denoise.betas is not None:
        raise BadRequest("Only a flow's latents can be found.", code="task_not_supported", param="model")
    return solvers.flow_back(_levels(denoise, denoise.steps), _ROUNDS)


def _levels(denoise: Denoise, steps: int) -> Array:
    spacing: grids.FlowSpacing = "trained" if denoise.spacing == "trained" else "even"
    return grids.flow_levels(steps, spacing=spacing, shift=denoise.shift)


def spread(previews: int, steps: int) -> frozenset[int]:
    """So many steps, the last never among them, that cut the way to the picture into parts of like length."""
    marks = [round(steps * i / (previews + 1)) for i in range(previews + 2)]
    return frozenset(after for before, after in pairwise(marks) if before < after < steps)
