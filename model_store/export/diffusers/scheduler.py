"""What a scheduler's configuration means here: how the manifest says it, and what stands in for what is not served.

What the model was trained with (betas, prediction) is kept or refused; how it is solved may be replaced, and is told.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from model_store.export.diffusers.directory import SCHEDULER, Pipeline
from model_store.export.diffusers.options import Size
from model_store.export.errors import DraftError
from model_store.export.hf.directory import Fields

TRAINED: Final = 1000
MOST_STEPS: Final = 100

_SOLVERS: Final = ("dpm", "ddim", "euler")
_NEAREST: Final[Mapping[str, tuple[str, bool, str]]] = {
    "DDIMScheduler": ("ddim", True, "leading"),
    "EulerDiscreteScheduler": ("euler", True, "linspace"),
    "DPMSolverMultistepScheduler": ("dpm", True, "linspace"),
    "DDPMScheduler": ("ddim", False, "leading"),
    "PNDMScheduler": ("dpm", False, "leading"),
    "LMSDiscreteScheduler": ("dpm", False, "linspace"),
    "HeunDiscreteScheduler": ("dpm", False, "linspace"),
    "EulerAncestralDiscreteScheduler": ("euler", False, "linspace"),
    "UniPCMultistepScheduler": ("dpm", False, "linspace"),
    "DEISMultistepScheduler": ("dpm", False, "linspace"),
}
"""Of a diffusion model's schedulers: the solver, whether it is the same one, and how times are spaced unless configured."""

_FLOW: Final = {"FlowMatchEulerDiscreteScheduler": "euler", "FlowMatchHeunDiscreteScheduler": "heun"}
_PLAIN: Final[Fields] = {
    "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False, "use_lu_lambdas": False,
    "thresholding": False, "interpolation_type": "linear", "timestep_type": "discrete", "sigma_min": None, "sigma_max": None,
    "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero",
    "shift_terminal": None, "invert_sigmas": False, "stochastic_sampling": False,
}  # fmt: skip
"""Settings that change how a model is solved, with the only value of each that is served."""


@dataclass(frozen=True)
class Solving:
    """Fields of the manifest's `Denoise`; `notes` say what stands in for what. `exact`: the scheduler's own numbers come out."""

    fields: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether diffusers' pipeline with the directory's own scheduler makes the same picture."""
        return not self.notes


def read_solving(pipeline: Pipeline, size: Size) -> Solving:
    """How the model is solved; `size` is the one that a shift by size is taken for. Raises DraftError."""
    config = pipeline.configs[SCHEDULER]
    kind = str(config["_class_name"])
    odd = sorted(name for name, plain in _PLAIN.items() if config.get(name, plain) != plain)
    if pipeline.layout.flow:
        return _flow(pipeline, kind, odd, size)
    if kind not in _NEAREST:
        raise DraftError(
            f"{kind} is no scheduler of a diffusion model that is known; there are {', '.join(_NEAREST)}"
        )
    solver, same, spacing = _NEAREST[kind]
    fields = _trained(config) | {
        "solvers": (solver, *(each for each in _SOLVERS if each != solver)),
        "spacing": config.get("timestep_spacing", spacing),
        "offset": int(config.get("steps_offset", 0)),
        "to_clean": bool(config.get("set_alpha_to_one", kind != "PNDMScheduler")),
        "clip": float(config.get("clip_sample_range", 1.0))
        if config.get("clip_sample", solver == "ddim")
        else None,
    }
    return Solving(fields, () if same and not odd else (_instead(kind, odd, solver),))


def _trained(config: Fields) -> dict[str, Any]:
    """How the model was trained. Raises DraftError for what no solver here can follow."""
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction"}:
        raise DraftError(f"the model predicts {prediction!r}; epsilon and v_prediction are served")
    schedule = config.get("beta_schedule", "linear")
    if schedule not in {"linear", "scaled_linear"} or config.get("trained_betas") is not None:
        raise DraftError(
            f"the model was trained with betas of its own ({schedule}); linear and scaled_linear ones are served"
        )
    if config.get("use_flow_sigmas"):
        raise DraftError("use_flow_sigmas: a flow model with a diffusion model's scheduler is not exported")
    zero_snr = bool(config.get("rescale_betas_zero_snr"))
    if zero_snr and prediction == "epsilon":
        raise DraftError(
            "where nothing but noise is left, noise foretells nothing: rescale_betas_zero_snr needs v_prediction"
        )
    betas = {
        "schedule": schedule,
        "start": float(config.get("beta_start", 0.0001)),
        "end": float(config.get("beta_end", 0.02)),
        "trained": int(config.get("num_train_timesteps", TRAINED)),
        "zero_snr": zero_snr,
    }
    return {"prediction": prediction, "betas": betas, "most_steps": min(MOST_STEPS, betas["trained"] - 1)}


def _flow(pipeline: Pipeline, kind: str, odd: list[str], size: Size) -> Solving:
    config = pipeline.configs[SCHEDULER]
    if kind not in _FLOW:
        raise DraftError(
            f"{kind} is no scheduler of a flow model that is known; there are {', '.join(_FLOW)}"
        )
    if config.get("num_train_timesteps", TRAINED) != TRAINED:
        raise DraftError(
            f"the model counts {config['num_train_timesteps']} times; flows that count {TRAINED} are exported"
        )
    solver, packed = _FLOW[kind], pipeline.layout.name == "flux"
    notes = [_instead(kind, odd, solver)] if odd else []
    shift = float(config.get("shift", 1.0))
    if config.get("use_dynamic_shifting"):
        shift = dynamic_shift(config, size, pipeline.multiple)
        if not packed:  # its last level is not shifted as it is where shifts are fixed
            notes.append(f"the shift by size becomes a fixed one, {shift:.4g}")
    fields = {
        "prediction": "velocity",
        "solvers": (solver, *sorted({"euler", "heun"} - {solver})),
        "spacing": "even" if packed else "trained",
        "shift": shift,
        "most_steps": MOST_STEPS,
    }
    return Solving(fields, tuple(notes))


def dynamic_shift(config: Fields, size: Size, patch: int) -> float:
    """The shift of noise levels for a picture of so many patches, as diffusers' pipelines compute it from a line through two points."""
    tokens = (size[0] // patch) * (size[1] // patch)
    few, many = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
    low, high = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    mu = low + (high - low) * (tokens - few) / (many - few)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def shifts_by_size(pipeline: Pipeline) -> bool:
    """Whether pictures of another size would be made with another shift."""
    return bool(pipeline.layout.flow and pipeline.configs[SCHEDULER].get("use_dynamic_shifting"))


def _instead(kind: str, odd: list[str], solver: str) -> str:
    what = f"{kind} with {', '.join(odd)}" if odd else kind
    return f"{what} is not served: the solver {solver} stands in for it"
