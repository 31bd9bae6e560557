"""From noise to a picture: what each solver asks of the model and makes of its answer, as plain numbers for each stage.

All of them are linear: the next latent is a sum of the latent, the model's output, the data both foretell, and one array
remembered from the stage before. Their factors are computed once, in float64. Knows numpy arrays of one row; no graph,
no batch and no time.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from deployments.image.grids import Spacing, noise_ratios, times
from model_store.session import Array

Prediction = Literal["velocity", "epsilon", "v_prediction"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One evaluation of the model, and how it moves a row's latent on. Numbers are factors but for `time` and `step`."""

    time: float  # as the model takes it
    step: int  # which of the steps this ends or is part of, from 0
    latent: float
    output: float
    clean: tuple[float, float]  # of latent and output: the data they foretell
    noised: tuple[float, float]  # of data and noise: a latent at this stage
    data: float = 0.0  # of what they foretell
    memory: float = 0.0
    scale: float = 1.0  # of the latent as the model sees it
    clip: float | None = None  # greatest value of the data
    keeps: Literal["output", "data"] | None = None  # what the next stage remembers


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages of one picture. `start` is the factor of the noise that it begins with."""

    stages: tuple[Stage, ...]
    start: float = 1.0


def advance(stage: Stage, latent: Array, output: Array, memory: Array | None) -> tuple[Array, Array | None]:
    """The next latent, and what its stage is to remember. float32, none of the arguments written."""
    data = foretold(stage, latent, output) if stage.data or stage.keeps == "data" else None
    terms = [(stage.latent, latent), (stage.output, output), (stage.data, data), (stage.memory, memory)]
    moved = np.zeros_like(latent)
    for factor, array in terms:
        if factor and array is not None:
            moved += np.float32(factor) * array
    return moved, {"output": output, "data": data, None: None}[stage.keeps]


def foretold(stage: Stage, latent: Array, output: Array) -> Array:
    """The data that a stage's latent and output would end in: a preview of the picture."""
    data = np.float32(stage.clean[0]) * latent + np.float32(stage.clean[1]) * output
    return data if stage.clip is None else np.clip(data, -stage.clip, stage.clip)


# -- flow models: the output is the latent's change with time, which runs from 0 (noise) to 1 (data) ----------------------


def flow_euler(levels: Array) -> Plan:
    """Straight on from each of the noise levels (`grids.flow_levels`) to the next."""
    ways = enumerate(pairwise(levels.tolist()))
    return Plan(tuple(_flow(step, level, output=level - following) for step, (level, following) in ways))


def flow_heun(levels: Array) -> Plan:
    """Each step but the last is taken again with the mean of its first slope and that at its end: 2 n - 1 evaluations."""
    stages: list[Stage] = []
    for step, (level, following) in enumerate(pairwise(levels.tolist())):
        length, last = level - following, step == len(levels) - 2
        stages.append(_flow(step, level, output=length, keeps=None if last else "output"))
        if not last:
            stages.append(_flow(step, following, output=length / 2, memory=-length / 2))
    return Plan(tuple(stages))


def flow_back(levels: Array, rounds: int) -> Plan:
    """From data to the noise that Euler's steps over these levels lead to it from.

    Where such a step came from is the fixed point of a step back, found in so many `rounds`.
    """
    stages: list[Stage] = []
    for step, (following, level) in enumerate(pairwise(levels.tolist()[::-1])):
        length = following - level
        for turn in range(rounds):
            again = turn > 0
            last = turn == rounds - 1
            stages.append(
                _flow(
                    step,
                    level,
                    output=length,
                    memory=-length if again else 0.0,
                    keeps=None if last else "output",
                )
            )
    return Plan(tuple(stages))


def _flow(
    step: int, level: float, *, output: float, memory: float = 0.0, keeps: Literal["output"] | None = None
) -> Stage:
    return Stage(
        time=1 - level,
        step=step,
        latent=1.0,
        output=output,
        clean=(1.0, level),
        noised=(1 - level, level),
        memory=memory,
        keeps=keeps,
    )


# -- diffusion models: `alphas` are cumulative products (`grids.cumulative_alphas`), time is a place among them ----------


def ddim(
    alphas: Array,
    steps: int,
    prediction: Prediction,
    *,
    spacing: Spacing = "leading",
    offset: int = 0,
    to_clean: bool = True,
    clip: float | None = None,
) -> Plan:
    """Song et al. 2020 without added noise. `to_clean`: the last step leaves no noise, not that of the first trained time."""
    trained = len(alphas)
    stages = []
    for step, time in enumerate(times(spacing, steps, trained, offset=offset).astype(int)):
        signal, noise = _parts(alphas[time])
        before = time - trained // steps
        end = 1.0 if to_clean else alphas[0]
        next_signal, next_noise = _parts(alphas[before] if before >= 0 else end)
        # Of latent and output: the noise in the latent.
        epsilon = (0.0, 1.0) if prediction == "epsilon" else (noise, signal)
        stages.append(
            Stage(
                time=float(time),
                step=step,
                latent=next_noise * epsilon[0],
                output=next_noise * epsilon[1],
                data=next_signal,
                clean=_clean(signal, noise, prediction),
                noised=(signal, noise),
                clip=clip,
            )
        )
    return Plan(tuple(stages))


def euler(
    alphas: Array, steps: int, prediction: Prediction, *, spacing: Spacing = "linspace", offset: int = 0
) -> Plan:
    """Straight on in noise beside a signal of 1 (Karras et al. 2022): the model sees the latent scaled to variance 1."""
    grid = times(spacing, steps, len(alphas), offset=offset, whole=False)
    ratios = np.append(np.interp(grid, np.arange(len(alphas)), noise_ratios(alphas)), 0.0).tolist()
    stages = []
    for step, time in enumerate(grid):
        ratio, following = ratios[step], ratios[step + 1]
        scale = 1 / (ratio**2 + 1) ** 0.5
        clean = (1.0, -ratio) if prediction == "epsilon" else (scale**2, -ratio * scale)
        part = (following - ratio) / ratio
        stages.append(
            Stage(
                time=float(time),
                step=step,
                latent=1 + part * (1 - clean[0]),
                output=-part * clean[1],
                clean=clean,
                noised=(1.0, ratio),
                scale=scale,
            )
        )
    return Plan(tuple(stages), (ratios[0] ** 2 + 1) ** 0.5 if spacing == "leading" else ratios[0])


def dpm(
    alphas: Array, steps: int, prediction: Prediction, *, spacing: Spacing = "linspace", offset: int = 0
) -> Plan:
    """DPM-Solver++ (2M, Lu et al. 2022): second order from the data foretold at a step and at the one before.

    The first step and the last are of first order.
    """
    grid = times(spacing, steps, len(alphas), offset=offset, beyond=1).astype(int)
    ratios = np.append(noise_ratios(alphas)[grid], 0.0).tolist()
    stages = []
    for step, time in enumerate(grid):
        signal, noise = _parts(1 / (ratios[step] ** 2 + 1))
        next_signal, next_noise = _parts(1 / (ratios[step + 1] ** 2 + 1))
        data, second = next_signal * (1 - ratios[step + 1] / ratios[step]), 0.0
        if 0 < step < steps - 1:
            lengths = -np.diff(np.log(ratios[step - 1 : step + 2]))
            second = data * float(lengths[1] / lengths[0]) / 2
        stages.append(
            Stage(
                time=float(time),
                step=step,
                latent=next_noise / noise,
                output=0.0,
                data=data + second,
                memory=-second,
                clean=_clean(signal, noise, prediction),
                noised=(signal, noise),
                keeps="data",
            )
        )
    return Plan(tuple(stages))


def _parts(alpha: float) -> tuple[float, float]:
    """Signal and noise in a latent of variance 1."""
    return float(alpha) ** 0.5, (1 - float(alpha)) ** 0.5


def _clean(signal: float, noise: float, prediction: Prediction) -> tuple[float, float]:
    return (1 / signal, -noise / signal) if prediction == "epsilon" else (signal, -noise)
