"""Against diffusers' own schedulers, stage by stage, on a made-up model that is anything but linear."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from deployments.image import solvers
from deployments.image.grids import Spacing, cumulative_alphas, flow_levels
from deployments.image.solvers import Plan, Prediction, Stage, advance, foretold
from model_store.session import Array

# diffusers hands tensors to numpy in a way that numpy 2 wants changed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NOISE = np.random.default_rng(0).standard_normal((3, 4, 4), dtype=np.float32)
# Stable Diffusion's, and the first diffusion models'.
BETAS: dict[str, dict[str, Any]] = {
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    "linear": {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
}
STEPS = (1, 2, 3, 7, 14, 15, 20, 50)
SPACINGS: tuple[Spacing, ...] = ("leading", "trailing", "linspace")
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction")


def alphas(name: str, *, zero_snr: bool = False) -> Array:
    betas = BETAS[name]
    return cumulative_alphas(
        betas["beta_schedule"], betas["beta_start"], betas["beta_end"], zero_snr=zero_snr
    )


def model(latent: Array, time: float) -> Array:
    """A made-up answer, float32, that depends on the latent and on the time."""
    output: Array = np.sin(1.5 * latent + np.float32(np.sin(time))) + np.float32(0.3) * latent
    return output.astype(np.float32)


def solve(plan: Plan, answer: Callable[[Array, float], Array] = model) -> list[Array]:
    """The latent after each stage."""
    latent, memory = np.float32(plan.start) * NOISE, None
    path = []
    for stage in plan.stages:
        output = answer(np.float32(stage.scale) * latent, stage.time)
        latent, memory = advance(stage, latent, output, memory)
        path.append(latent)
    assert all(each.dtype == np.float32 for each in path)
    return path


def diffused(scheduler: Any, steps: int, answer: Callable[[Array, float], Array] = model) -> list[Array]:
    """The same by diffusers."""
    scheduler.set_timesteps(steps)
    latent = torch.from_numpy(NOISE)[None] * getattr(scheduler, "init_noise_sigma", 1.0)
    path = []
    for time in scheduler.timesteps:
        seen = (
            scheduler.scale_model_input(latent, time) if hasattr(scheduler, "scale_model_input") else latent
        )
        output = torch.from_numpy(answer(seen[0].numpy(), float(time)))[None]
        latent = scheduler.step(output, time, latent).prev_sample
        path.append(latent[0].numpy())
    return path


def assert_same(ours: list[Array], theirs: list[Array], tolerance: float = 2e-4) -> None:
    """Ours are rounded once, theirs at every turn, and what was rounded otherwise is fed back: hence the tolerance."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert float(np.abs(mine - other).max()) <= tolerance * max(1.0, float(np.abs(other).max()))


# -- flow models -------------------------------------------------------------------------------------------------------


def reversed_flow(latent: Array, time: float) -> Array:
    """The model as diffusers asks it: time 1000 is noise, and the output points towards it."""
    return -model(latent, 1 - time / 1000)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", STEPS)
def test_flow_euler_is_diffusers(steps: int, shift: float) -> None:
    theirs = diffused(FlowMatchEulerDiscreteScheduler(shift=shift), steps, reversed_flow)
    assert_same(solve(solvers.flow_euler(flow_levels(steps, spacing="trained", shift=shift))), theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", STEPS)
def test_flow_heun_is_diffusers(steps: int, shift: float) -> None:
    theirs = diffused(FlowMatchHeunDiscreteScheduler(shift=shift), steps, reversed_flow)
    ours = solve(solvers.flow_heun(flow_levels(steps, spacing="trained", shift=shift)))
    assert len(ours) == 2 * steps - 1
    assert_same(ours, theirs)


def test_a_straight_flow_needs_one_step() -> None:
    target = np.full_like(NOISE, 0.25)
    for steps in (1, 2, 5):
        for solver in (solvers.flow_euler, solvers.flow_heun):
            path = solve(solver(flow_levels(steps)), lambda latent, time: target - NOISE)
            assert np.allclose(path[-1], target, atol=1e-6)


def test_heun_is_of_second_order() -> None:
    """dx/dt = x: halving the steps' length quarters the error of Heun, and halves that of Euler."""

    def error(solver: Callable[[Array], Plan], steps: int) -> float:
        levels = np.linspace(1, 0.5, steps + 1)  # the last step of a whole grid is one of Euler's
        stages = solver(np.append(levels, 0.4)).stages[:-1]
        path = solve(Plan(stages), lambda latent, time: latent)
        return float(np.abs(path[-1] - np.exp(np.float32(0.5)) * NOISE).max())

    assert error(solvers.flow_euler, 4) / error(solvers.flow_euler, 8) == pytest.approx(2, rel=0.1)
    assert error(solvers.flow_heun, 4) / error(solvers.flow_heun, 8) == pytest.approx(4, rel=0.1)


# -- diffusion models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", STEPS)
def test_ddim_is_diffusers(steps: int, betas: str, spacing: Spacing, prediction: Prediction) -> None:
    scheduler = DDIMScheduler(
        **BETAS[betas],
        timestep_spacing=spacing,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    plan = solvers.ddim(alphas(betas), steps, prediction, spacing=spacing, offset=1, to_clean=False)
    assert_same(solve(plan), diffused(scheduler, steps))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_clips_and_ends_without_noise(prediction: Prediction) -> None:
    scheduler = DDIMScheduler(**BETAS["linear"], prediction_type=prediction, clip_sample_range=0.8)
    plan = solvers.ddim(alphas("linear"), 10, prediction, clip=0.8)
    ours = solve(plan)
    assert_same(ours, diffused(scheduler, 10))
    assert float(np.abs(ours[-1]).max()) <= 0.8


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", STEPS)
def test_euler_is_diffusers(steps: int, betas: str, spacing: Spacing, prediction: Prediction) -> None:
    scheduler = EulerDiscreteScheduler(
        **BETAS[betas], timestep_spacing=spacing, prediction_type=prediction, steps_offset=1
    )
    plan = solvers.euler(alphas(betas), steps, prediction, spacing=spacing, offset=1)
    assert_same(solve(plan), diffused(scheduler, steps))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", STEPS)
def test_dpm_is_diffusers(steps: int, betas: str, spacing: Spacing, prediction: Prediction) -> None:
    scheduler = DPMSolverMultistepScheduler(
        **BETAS[betas], timestep_spacing=spacing, prediction_type=prediction, steps_offset=1
    )
    plan = solvers.dpm(alphas(betas), steps, prediction, spacing=spacing, offset=1)
    assert_same(solve(plan), diffused(scheduler, steps))


def test_without_any_signal_at_the_last_time() -> None:
    """Checkpoints that begin with nothing but noise foretell v."""
    common: dict[str, Any] = {
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
    }
    rescaled = alphas("scaled_linear", zero_snr=True)
    assert rescaled[-1] == 0
    theirs = DDIMScheduler(**BETAS["scaled_linear"], **common, clip_sample=False)
    plan = solvers.ddim(rescaled, 12, "v_prediction", spacing="trailing")
    assert_same(solve(plan), diffused(theirs, 12))
    for scheduler, solver in (
        (EulerDiscreteScheduler, solvers.euler),
        (DPMSolverMultistepScheduler, solvers.dpm),
    ):
        plan = solver(rescaled, 12, "v_prediction", spacing="trailing")
        assert_same(solve(plan), diffused(scheduler(**BETAS["scaled_linear"], **common), 12), 1e-3)


@given(st.integers(1, 60), st.sampled_from(PREDICTIONS), st.sampled_from(SPACINGS))
def test_every_solver_ends_at_what_a_perfect_model_knows(
    steps: int, prediction: Prediction, spacing: Spacing
) -> None:
    """A model that sees the picture behind the noise leads to it, whatever the grid."""
    target, products = np.full_like(NOISE, 0.5), alphas("scaled_linear")
    for solver in (solvers.ddim, solvers.euler, solvers.dpm):
        plan = solver(products, steps, prediction, spacing=spacing)
        latent, memory = np.float32(plan.start) * NOISE, None
        for stage in plan.stages:
            data, output = stage.clean
            answer = (target - np.float32(data) * latent) / np.float32(output)
            latent, memory = advance(stage, latent, answer, memory)
        # Trailing times of DDIM may end at the first trained time, where a little noise is left.
        assert np.allclose(latent, target, atol=0.2 if solver is solvers.ddim else 5e-3)


# -- stages -------------------------------------------------------------------------------------------------------------


def every_plan(steps: int) -> list[Plan]:
    products = alphas("scaled_linear")
    return [
        solvers.flow_euler(flow_levels(steps)),
        solvers.flow_heun(flow_levels(steps)),
        *(
            solver(products, steps, prediction)
            for solver in (solvers.ddim, solvers.euler, solvers.dpm)
            for prediction in PREDICTIONS
        ),
    ]


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_steps_are_counted_and_numbers_are_plain(steps: int) -> None:
    for plan in every_plan(steps):
        assert sorted({stage.step for stage in plan.stages}) == list(range(steps))
        for stage in plan.stages:
            assert type(stage.time) is type(stage.latent) is type(stage.output) is float
            assert np.isfinite([stage.time, stage.latent, stage.output, stage.data, stage.memory]).all()


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_picture_made_noisy_is_foretold_from_its_noise(steps: int) -> None:
    picture = np.full_like(NOISE, -0.5)
    for plan in every_plan(steps):
        for stage in plan.stages:
            signal, noise = (np.float32(factor) for factor in stage.noised)
            latent = signal * picture + noise * NOISE
            output = _truth(plan, stage, picture)
            if output is not None:
                assert np.allclose(foretold(stage, latent, output), picture, atol=2e-3)


def _truth(plan: Plan, stage: Stage, picture: Array) -> Array | None:
    """What a perfect flow or epsilon model says; None for the others."""
    if stage.noised[0] + stage.noised[1] == pytest.approx(1) and stage.clean[0] == 1 and stage.scale == 1:
        return picture - NOISE
    return NOISE if stage.clean[1] == pytest.approx(-stage.noised[1] / stage.noised[0]) else None


def test_arguments_are_not_written() -> None:
    for plan in every_plan(3):
        latent, output, memory = NOISE.copy(), NOISE.copy() * 2, NOISE.copy() * 3
        for array in (latent, output, memory):
            array.flags.writeable = False
        for stage in plan.stages:
            moved, _ = advance(stage, latent, output, memory)
            assert not np.shares_memory(moved, latent)
