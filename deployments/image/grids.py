"""How noisy a picture is from step to step: the grids that flow and diffusion models were trained for, as diffusers makes them.

Numbers only, in float64: knows no model and no solver.
"""

from typing import Final, Literal

import numpy as np

from model_store.session import Array

FlowSpacing = Literal["even", "trained"]
Spacing = Literal["leading", "trailing", "linspace"]

# What a cumulative product that reached zero is taken for where something is divided by it.
_LEAST: Final = 2.0**-24


def shifted(level: Array | float, shift: float) -> Array | float:
    """Noise levels of a flow, moved towards noise by a shift above 1 (Esser et al. 2024): 0 and 1 stay."""
    return shift * level / (1 + (shift - 1) * level)


def flow_levels(
    steps: int, *, spacing: FlowSpacing = "even", shift: float = 1.0, trained: int = 1000
) -> Array:
    """Noise levels of a flow, [steps + 1], from 1 (noise) down to 0 (data).

    `even`: steps of equal length before the shift (Flux). `trained`: down to the least of `trained` levels, itself shifted,
    and from there to 0 in a step of its own (`FlowMatchEulerDiscreteScheduler`).
    """
    least = 1 / steps if spacing == "even" else float(shifted(1 / trained, shift))
    between = shifted(np.linspace(1.0, least, steps)[1:], shift)
    return np.concatenate([[1.0], between, [0.0]])  # 1 exactly, however it would be rounded


def cumulative_alphas(
    schedule: Literal["linear", "scaled_linear"],
    start: float,
    end: float,
    trained: int = 1000,
    *,
    zero_snr: bool = False,
) -> Array:
    """What part of a picture's variance is left at each of `trained` times, [trained], falling.

    `zero_snr`: nothing at the last (Lin et al. 2023).
    """
    root = 2 if schedule == "scaled_linear" else 1
    betas = np.linspace(start ** (1 / root), end ** (1 / root), trained) ** root
    products = np.cumprod(1 - betas)
    if not zero_snr:
        return products
    signal = np.sqrt(products)
    rescaled: Array = ((signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))) ** 2
    return rescaled


def noise_ratios(alphas: Array) -> Array:
    """Noise beside a signal of 1, for each of these cumulative products."""
    kept = np.maximum(alphas, _LEAST)
    ratios: Array = np.sqrt((1 - kept) / kept)
    return ratios


def times(
    spacing: Spacing, steps: int, trained: int = 1000, *, offset: int = 0, whole: bool = True, beyond: int = 0
) -> Array:
    """Times at which a diffusion model is evaluated, [steps], falling; `offset` counts for `leading` only.

    `whole`: rounded. `beyond`: the grid has so many more points at its end, which are left out (multistep solvers: 1).
    """
    if spacing == "trailing":
        points = np.round(trained - np.arange(steps) * (trained / steps)) - 1
    elif spacing == "leading":
        ratio = trained // (steps + beyond)
        points = (np.arange(steps + beyond) * ratio)[::-1][:steps] + float(offset)
    else:
        points = np.linspace(0, trained - 1, steps + beyond)[::-1][:steps]
    return np.minimum(np.round(points) if whole else points, trained - 1)
