"""What schedulers' configurations mean, and what stands in for what is not served."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from model_store.export.diffusers.directory import read_pipeline
from model_store.export.diffusers.scheduler import Solving, read_solving, shifts_by_size
from model_store.export.errors import DraftError
from tests.model_store.export.diffusers.skeletons import skeleton

SIZE = (1024, 1024)


def solving(folder: Path, layout: str, kind: str = "", **config: Any) -> Solving:
    kinds = {"scheduler": kind} if kind else {}
    return read_solving(read_pipeline(skeleton(folder, layout, {"scheduler": config}, **kinds)), SIZE)


@pytest.mark.parametrize(
    ("layout", "kind", "config", "expected"),
    [
        ("sd", "DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, {"solvers": ("ddim", "dpm", "euler"), "spacing": "leading", "to_clean": False, "clip": None, "offset": 1}),
        ("sd", "DDIMScheduler", {"clip_sample_range": 2.0, "set_alpha_to_one": True}, {"clip": 2.0, "to_clean": True}),
        ("sd", "EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, {"solvers": ("euler", "dpm", "ddim"), "spacing": "linspace", "prediction": "v_prediction", "clip": None}),
        ("sd", "DPMSolverMultistepScheduler", {"num_train_timesteps": 50}, {"solvers": ("dpm", "ddim", "euler"), "most_steps": 49}),
        ("sd3", "", {}, {"prediction": "velocity", "solvers": ("euler", "heun"), "spacing": "trained", "shift": 3.0}),
        ("sd3", "FlowMatchHeunDiscreteScheduler", {}, {"solvers": ("heun", "euler")}),
        ("flux", "", {}, {"spacing": "even", "shift": math.exp(1.15)}),
        ("flux", "", {"use_dynamic_shifting": False, "shift": 1.0}, {"shift": 1.0}),
        ("flux", "", {"time_shift_type": "linear"}, {"shift": 1.15}),
    ],
)  # fmt: skip
def test_what_is_served_is_kept(
    tmp_path: Path, layout: str, kind: str, config: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    found = solving(tmp_path, layout, kind, **config)

    assert found.exact
    assert {name: found.fields[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("layout", "kind", "config", "note"),
    [
        ("sd", "PNDMScheduler", {}, "PNDMScheduler is not served: the solver dpm stands in for it"),
        ("sd", "EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.1}, "EulerDiscreteScheduler with sigma_min, use_karras_sigmas is not served: the solver euler stands in for it"),
        ("sd", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "DPMSolverMultistepScheduler with algorithm_type is not served: the solver dpm stands in for it"),
        ("ddpm", "", {}, "DDPMScheduler is not served: the solver ddim stands in for it"),
        ("sd3", "", {"shift_terminal": 0.1}, "FlowMatchEulerDiscreteScheduler with shift_terminal is not served: the solver euler stands in for it"),
        ("sd3", "", {"use_dynamic_shifting": True}, "the shift by size becomes a fixed one, 3.158"),
    ],
)  # fmt: skip
def test_what_stands_in_is_told(
    tmp_path: Path, layout: str, kind: str, config: Mapping[str, Any], note: str
) -> None:
    assert solving(tmp_path, layout, kind, **config).notes == (note,)


def test_a_ddpm_is_solved_without_noise_and_clipped(tmp_path: Path) -> None:
    fields = solving(tmp_path, "ddpm").fields

    assert (fields["clip"], fields["to_clean"], fields["solvers"][0]) == (1.0, True, "ddim")
    assert fields["betas"] == {
        "schedule": "linear",
        "start": 0.0001,
        "end": 0.02,
        "trained": 1000,
        "zero_snr": False,
    }


@pytest.mark.parametrize(
    ("layout", "kind", "config", "complaint"),
    [
        (
            "sd",
            "LCMScheduler",
            {},
            "LCMScheduler is no scheduler of a diffusion model that is known; there are DDIMScheduler",
        ),
        ("sd", "FlowMatchEulerDiscreteScheduler", {}, "is no scheduler of a diffusion model"),
        ("sd3", "DDIMScheduler", {}, "DDIMScheduler is no scheduler of a flow model that is known"),
        (
            "sd",
            "",
            {"prediction_type": "sample"},
            "the model predicts 'sample'; epsilon and v_prediction are served",
        ),
        ("sd", "", {"beta_schedule": "squaredcos_cap_v2"}, r"betas of its own \(squaredcos_cap_v2\)"),
        ("sd", "", {"trained_betas": [0.1]}, "betas of its own"),
        ("sd", "", {"use_flow_sigmas": True}, "use_flow_sigmas"),
        ("sd", "", {"rescale_betas_zero_snr": True}, "needs v_prediction"),
        ("flux", "", {"num_train_timesteps": 500}, "the model counts 500 times"),
    ],
)
def test_what_no_solver_can_follow_is_refused(
    tmp_path: Path, layout: str, kind: str, config: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(DraftError, match=complaint):
        solving(tmp_path, layout, kind, **config)


def test_only_some_flows_are_shifted_by_size(tmp_path: Path) -> None:
    assert shifts_by_size(read_pipeline(skeleton(tmp_path / "flux", "flux")))
    assert not shifts_by_size(read_pipeline(skeleton(tmp_path / "sd3", "sd3")))
    assert not shifts_by_size(read_pipeline(skeleton(tmp_path / "sd", "sd")))
