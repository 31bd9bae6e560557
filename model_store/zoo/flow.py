"""Rectified flows: straight lines from noise (time 0) to data (time 1), how their velocity is learned, followed and straightened.

Knows neither data nor architecture: a velocity is called with latents [batch, ...] and times [batch]; a condition, where there is
one, is bound into it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(latent [batch, ...], time [batch]) -> the direction in which each latent moves, of the same shape."""

Solver: TypeAlias = Callable[[Velocity, Tensor, int], Tensor]
"""(velocity, noise [batch, ...], steps) -> data [batch, ...]."""

Net: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(latent [batch, ...], time [batch], condition [batch, ...]) -> velocity."""


def between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The points [batch, ...] a `share` [batch] of the way from `start` to `end`."""
    return torch.lerp(start, end, spread(share, start))


def spread(times: Tensor, latent: Tensor) -> Tensor:
    """Times [batch] shaped so that they multiply latents [batch, ...]."""
    return times.reshape(-1, *(1,) * (latent.ndim - 1))


def chebyshev(time: Tensor, degree: int) -> Tensor:
    """Tell times [batch] in [0, 1] by their Chebyshev polynomials [batch, degree], from the first degree up.

    They are made of products and differences alone: ONNX Runtime's sine gives a number other bits at another place of its batch.
    """
    x = 2.0 * time - 1.0
    found = [torch.ones_like(x), x]
    while len(found) <= degree:
        found.append(2.0 * x * found[-1] - found[-2])
    return torch.stack(found[1:], dim=1)


def logit_normal(count: int, generator: torch.Generator) -> Tensor:
    """Times [count] in (0, 1), most of them in the middle (Esser et al. 2024): there the velocity is hardest to tell."""
    return torch.randn(count, generator=generator).sigmoid()


def matching_loss(velocity: Velocity, data: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of the velocity at random points of the lines from noise to data [batch, ...]."""
    noise = torch.randn(data.shape, generator=generator)
    time = logit_normal(len(data), generator)
    return functional.mse_loss(velocity(between(noise, data, time), time), data - noise)


@dataclass(frozen=True)
class Windows:
    """Time cut into `count` windows, in each of which a flow is made straight (Yan et al. 2024, PeRFlow).

    Where a window begins is a point between noise and real data; where it ends, the teacher finds by `steps` midpoint steps.
    A straight window needs one Euler step: `count` steps in all, or a multiple of it.
    """

    count: int = 4
    steps: int = 3

    def loss(self, student: Velocity, teacher: Velocity, data: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the student's velocity beside the straight way through a random window of each row.

        More of the points are drawn where windows begin: there few-step solvers look, and where one ends the next begins, so
        at that time a continuous net can go only one of the two ways.
        """
        noise = torch.randn(data.shape, generator=generator)
        window = torch.randint(0, self.count, (len(data),), generator=generator) / self.count
        share = torch.rand(len(data), generator=generator).square()
        start = between(noise, data, window)
        end = midpoint(teacher, start, window, 1.0 / self.count, self.steps)
        seen = student(between(start, end, share), window + share / self.count)
        return functional.mse_loss(seen, (end - start) * self.count)


@torch.no_grad()
def midpoint(velocity: Velocity, latent: Tensor, time: Tensor, length: float, steps: int) -> Tensor:
    """Follow a velocity from `time` [batch] for `length` in `steps` second-order steps; it is never asked at the very end."""
    pace = length / steps
    for step in range(steps):
        now = time + step * pace
        halfway = latent + pace / 2 * velocity(latent, now)
        latent = latent + pace * velocity(halfway, now + pace / 2)
    return latent


def guided(net: Net, wanted: Tensor, without: Tensor, scale: float) -> Velocity:
    """The velocity under `wanted` [batch, ...], `scale` times as far from that under `without` [1, ...].

    A scale of 1 is no guidance, and one evaluation instead of two.
    """
    if scale == 1.0:
        return lambda latent, time: net(latent, time, wanted)
    pairs = torch.cat([wanted, without.expand_as(wanted)])

    def velocity(latent: Tensor, time: Tensor) -> Tensor:
        asked, plain = net(torch.cat([latent, latent]), torch.cat([time, time]), pairs).chunk(2)
        return torch.lerp(plain, asked, scale)

    return velocity


@torch.no_grad()
def euler(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Follow a velocity from noise to data in `steps` even steps, as many evaluations."""
    latent = noise
    for step in range(steps):
        latent = latent + velocity(latent, torch.full((len(noise),), step / steps)) / steps
    return latent


@torch.no_grad()
def heun(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Follow a velocity in `steps` even second-order steps, 2 * steps - 1 evaluations.

    The last step is Euler's: at time 1 no noise is left whose direction a net could tell.
    """
    latent = noise
    for step in range(steps):
        here = velocity(latent, torch.full((len(noise),), step / steps))
        ahead = latent + here / steps
        if step + 1 < steps:
            there = velocity(ahead, torch.full((len(noise),), (step + 1) / steps))
            ahead = latent + (here + there) / (2 * steps)
        latent = ahead
    return latent
