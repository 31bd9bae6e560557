"""What one picture asks of a model that makes pictures in steps: its plan, its noise, its conditions, how much it is guided.

Knows no graph and no batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from deployments.errors import BadRequest
from deployments.image import grids, solvers
from deployments.image.solvers import Plan
from deployments.randomness import noise
from deployments.rows import Row
from model_store.imaging import Denoise
from model_store.manifest import Manifest
from model_store.session import Array


@dataclass(eq=False, slots=True)
class Condition:
    """What the pictures of a request show, by role, without a batch dimension: one object for all of them.

    `ready` is what the graph `denoise` takes; its program makes that of `feeds` before the first step.
    """

    feeds: Mapping[str, Array]
    ready: Mapping[str, Array] | None = None


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
    original: Array | None = None  # a latent to begin from instead of noise alone
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

    def begin(self) -> Array:
        """The latent of the first stage: a function of the seed and the place alone."""
        drawn = noise(self.seed, self.place, int(np.prod(self.shape))).reshape(self.shape)
        if self.original is None:
            return np.float32(self.plan.start) * drawn
        signal, rest = self.plan.stages[self.first].noised
        mixed: Array = np.float32(signal) * self.original + np.float32(rest) * drawn
        return mixed


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
        latent = next(each for each in manifest.graphs["denoise"].inputs if each.role == "latent")
        self._channels = int(latent.shape[1])

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
    ) -> list[Painting]:
        """One for each picture. `without` is needed where there is guidance; `previews` are spread over the steps.

        Raises BadRequest.
        """
        scale = self._guidance(guidance)
        plan = plan_of(self.denoise, self._solver(solver), self._steps(steps))
        width, height = self._size(size)
        each = self.denoise.reduction
        return [
            Painting(
                plan,
                (self._channels, height // each, width // each),
                width * height,
                condition,
                scale,
                None if scale == 1 else without,
                seed,
                place,
                previews=spread(previews, plan.stages[-1].step + 1),
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

    def _guidance(self, guidance: float | None) -> float:
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

    def _size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        sizes = self._sizes()
        if size is not None and size not in sizes:
            known = ", ".join(f"{width}x{height}" for width, height in sizes)
            raise BadRequest(f"This model draws {known} only.", code="invalid_size", param="size")
        return size or sizes[0]


@lru_cache(maxsize=256)
def plan_of(denoise: Denoise, solver: str, steps: int) -> Plan:
    """The stages of a model's picture."""
    betas = denoise.betas
    if betas is None:
        spacing: grids.FlowSpacing = "trained" if denoise.spacing == "trained" else "even"
        levels = grids.flow_levels(steps, spacing=spacing, shift=denoise.shift)
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


def spread(previews: int, steps: int) -> frozenset[int]:
    """So many steps, the last never among them, that cut the way to the picture into parts of like length."""
    marks = [round(steps * i / (previews + 1)) for i in range(previews + 2)]
    return frozenset(after for before, after in pairwise(marks) if before < after < steps)
