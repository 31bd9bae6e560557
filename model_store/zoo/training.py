"""The training loop of the models: schedule, clipping, progress, a running average, and a checkpoint to go on from.

Knows neither data nor architecture: a model comes with a function that gives the loss of a step.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from model_store.export.draft import Progress

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `steps` updates, a linear warm-up, and a linear decay of the rate to zero.

    The warm-up is at most a tenth of the steps; the decay takes the share `decay` of what follows it, at the end.
    """

    steps: int
    warmup: int
    evaluate_every: int
    decay: float = 1.0

    def rate(self, step: int) -> float:
        """The share of the full learning rate for `step` (0-based): in (0, 1]."""
        warmup = min(self.warmup, self.steps // 10)
        rising = (step + 1) / (warmup + 1)
        falling = (self.steps - step) / (self.decay * (self.steps - warmup))
        return min(1.0, rising, falling)


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps what it needs to go on after a crash: one file, replaced whole."""

    path: Path

    def save(self, step: int, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Write the state after `step` steps aside and rename it, so a kill leaves the old or the new one."""
        state = {
            "step": step,
            "model": model.state_dict(),
            "optimizers": [each.state_dict() for each in optimizers],
        }
        aside = self.path.with_suffix(".part")
        torch.save(state, aside)
        aside.replace(self.path)

    def load(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> int:
        """Restore model and optimizers in place; the number of steps done, 0 without a checkpoint."""
        if not self.path.exists():
            return 0
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return int(state["step"])


@dataclass(frozen=True)
class Rates:
    """Peak learning rates: `matrix` for Muon, `other` for AdamW. `weight_decay` is for both."""

    matrix: float = 5e-3
    other: float = 3e-3
    weight_decay: float = 0.1


def adamw(model: nn.Module, rate: float, weight_decay: float = 0.01) -> AdamW:
    """AdamW over all weights, whose second moments look back 50 steps."""
    return AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)


def optimizers(model: nn.Module, rates: Rates) -> list[Optimizer]:
    """Muon for the matrices, AdamW for embeddings and everything else."""
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    matrices = [each for each in model.parameters() if each.ndim == 2 and id(each) not in embeddings]
    others = [each for each in model.parameters() if each.ndim != 2 or id(each) in embeddings]
    decay = rates.weight_decay
    return [
        Muon(matrices, lr=rates.matrix, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=rates.other, betas=(0.9, 0.98), weight_decay=decay, fused=True),
    ]


def in_bfloat16(model: nn.Module, *inputs: Tensor) -> Tensor:
    """Logits f32, computed in bfloat16 throughout; gradients reach the float32 weights."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    reduced = {name: value.bfloat16() for name, value in tensors}
    logits: Tensor = torch.func.functional_call(model, reduced, inputs)
    return logits.float()


def dropout(x: Tensor, chance: float) -> Tensor:
    """Zero about `chance` of `x` (in steps of 1/256) and scale the rest so that the mean stays.

    Each random number serves eight elements: on a CPU a fifth of the time of torch's own.
    """
    cut = round(256 * chance)
    if cut == 0:
        return x
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= cut
    return x * (keep.to(x.dtype) * (256 / (256 - cut)))


def draws(seed: int, step: int) -> torch.Generator:
    """The random numbers of one training step: those of a run that goes on from a checkpoint are those of one that never stopped."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    optimizers: Sequence[Optimizer],
    schedule: Schedule,
    *,
    progress: Progress,
    evaluate: Callable[[], float] | None = None,
    figure: str = "nats_per_char",
    after: Callable[[int], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train `model` in place; it is left in evaluation mode.

    `loss(step)` is the mean loss of the step's batch (0-based), `after(step)` comes behind its update; `evaluate()` is the held-out
    `figure`, taken every `schedule.evaluate_every` steps, where the checkpoint is written too. The schedule scales the rate each
    parameter group was made with. Where there is a checkpoint, training goes on from it.
    """
    peaks = [[float(group["lr"]) for group in each.param_groups] for each in optimizers]
    done = checkpoint.load(model, optimizers) if checkpoint else 0
    model.train()
    for step in range(done, schedule.steps):
        figures = {"loss": _update(model, loss(step), optimizers, peaks, schedule.rate(step))}
        after(step)
        if (step + 1) % schedule.evaluate_every == 0 or step + 1 == schedule.steps:
            if evaluate:
                model.eval()
                figures[figure] = evaluate()
                model.train()
            if checkpoint:
                checkpoint.save(step + 1, model, optimizers)
        progress(step + 1, schedule.steps, figures)
    model.eval()


def _update(
    model: nn.Module, loss: Tensor, optimizers: Sequence[Optimizer], peaks: list[list[float]], rate: float
) -> float:
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, rates in zip(optimizers, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = peak * rate
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


class Learner(nn.Module, Generic[Net]):
    """The net that is trained, and the running average of its weights, which is what is used of it: a checkpoint holds both."""

    newest: Net
    average: Net

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.newest, self.average = net, deepcopy(net).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def follow(self, step: int, keep: float) -> None:
        """Move the average by the share 1 - keep to the newest weights, faster in the first steps (`step` counts from 0)."""
        share = max(1.0 - keep, 9.0 / (step + 10.0))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.newest.parameters()), share)


def fit_average(
    net: Net,
    loss: Callable[[int], Tensor],
    optimizer: Optimizer,
    schedule: Schedule,
    keep: float,
    *,
    progress: Progress,
    evaluate: Callable[[Net], float] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Net:
    """Train `net` in place as `fit` does; the average of its weights, of which a step keeps `keep`, comes back, ready to use.

    `evaluate` takes the held-out loss of the average.
    """
    learner = Learner(net)
    fit(
        learner,
        loss,
        [optimizer],
        schedule,
        progress=progress,
        evaluate=(lambda: evaluate(learner.average)) if evaluate else None,
        figure="held_out_loss",
        after=lambda step: learner.follow(step, keep),
        checkpoint=checkpoint,
    )
    return learner.average
