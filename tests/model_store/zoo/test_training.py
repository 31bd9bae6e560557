import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model_store.zoo.training import (
    Checkpoint,
    Learner,
    Rates,
    Schedule,
    draws,
    dropout,
    fit,
    fit_average,
    in_bfloat16,
    optimizers,
)


def nothing(step: int, total: int, figures: Mapping[str, float]) -> None:
    """A progress callback that shows nothing."""


class Line(nn.Module):
    """A slope to be learned: the loss is its distance from 3."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.modes: list[bool] = []

    def loss(self, step: int) -> Tensor:
        self.modes.append(self.training)
        return (self.slope - 3).square()

    def evaluate(self) -> float:
        self.modes.append(self.training)
        return float((self.slope.detach() - 3).abs())


def train(
    line: Line, steps: int, checkpoint: Checkpoint | None = None
) -> list[tuple[int, int, dict[str, float]]]:
    seen: list[tuple[int, int, dict[str, float]]] = []
    fit(
        line,
        line.loss,
        [torch.optim.SGD(line.parameters(), lr=0.4)],
        Schedule(steps, warmup=2, evaluate_every=4),
        evaluate=line.evaluate,
        progress=lambda step, total, figures: seen.append((step, total, dict(figures))),
        checkpoint=checkpoint,
    )
    return seen


def test_it_learns() -> None:
    line = Line()
    train(line, 40)
    assert line.slope.item() == pytest.approx(3, abs=0.05)


def test_progress_tells_every_step_and_the_held_out_figure_where_measured() -> None:
    seen = train(Line(), 10)
    assert [(step, total) for step, total, _ in seen] == [(step, 10) for step in range(1, 11)]
    assert all("loss" in figures for _, _, figures in seen)
    assert [step for step, _, figures in seen if "nats_per_char" in figures] == [4, 8, 10]


def test_it_evaluates_in_evaluation_mode_and_is_left_in_it() -> None:
    line = Line()
    train(line, 4)
    assert line.modes == [True, True, True, True, False]
    assert not line.training


@given(steps=st.integers(1, 500), warmup=st.integers(0, 1000))
def test_the_rate_rises_then_falls_and_is_never_zero(steps: int, warmup: int) -> None:
    rates = [Schedule(steps, warmup, evaluate_every=1).rate(step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < min(rates) <= max(rates) <= 1
    assert abs(peak - min(warmup, steps // 10)) <= 1


def test_the_schedule_scales_each_groups_own_rate() -> None:
    line = Line()
    optimizer = torch.optim.SGD([{"params": [line.slope], "lr": 0.25}])
    schedule = Schedule(steps=4, warmup=0, evaluate_every=100)
    fit(line, line.loss, [optimizer], schedule, evaluate=line.evaluate, progress=nothing)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * schedule.rate(3))


def test_what_is_evaluated_has_a_name() -> None:
    line, seen = Line(), set[str]()
    fit(
        line,
        line.loss,
        [torch.optim.SGD(line.parameters(), lr=0.1)],
        Schedule(2, warmup=0, evaluate_every=1),
        evaluate=line.evaluate,
        progress=lambda step, total, figures: seen.update(figures),
        figure="held_out_loss",
    )
    assert seen == {"loss", "held_out_loss"}


def test_nothing_needs_to_be_evaluated() -> None:
    line, after, seen = Line(), list[int](), list[dict[str, float]]()
    fit(
        line,
        line.loss,
        [torch.optim.SGD(line.parameters(), lr=0.1)],
        Schedule(3, warmup=0, evaluate_every=1),
        after=after.append,
        progress=lambda step, total, figures: seen.append(dict(figures)),
    )
    assert after == [0, 1, 2]
    assert [set(each) for each in seen] == [{"loss"}] * 3
    assert line.modes == [True] * 3


def test_the_numbers_of_a_step_are_its_own() -> None:
    first, again, next_step, other_seed = (
        torch.randn(3, generator=draws(*key)) for key in ((0, 5), (0, 5), (0, 6), (1, 5))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)
    assert not torch.equal(first, other_seed)


def test_the_average_follows_fast_at_first() -> None:
    learner = Learner(nn.Linear(1, 1))
    nn.init.zeros_(learner.newest.weight)
    nn.init.ones_(learner.average.weight)
    learner.follow(0, keep=0.99)
    assert learner.average.weight.item() == pytest.approx(0.1)
    learner.follow(10_000, keep=0.99)
    assert learner.average.weight.item() == pytest.approx(0.099)


def slope() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def average(
    net: nn.Linear, seen: list[dict[str, float]], checkpoint: Checkpoint | None = None, stop: int = 6
) -> nn.Linear:
    """Learn to double in six steps; `stop` is one that is never done."""

    def loss(step: int) -> Tensor:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 1, generator=draws(0, step))
        error: Tensor = net(x) - 2 * x
        return error.square().mean()

    return fit_average(
        net,
        loss,
        torch.optim.AdamW(net.parameters(), lr=0.1),
        Schedule(6, warmup=0, evaluate_every=2),
        0.5,
        progress=lambda step, total, figures: seen.append(dict(figures) | {"step": step}),
        evaluate=lambda average: average.weight.item(),
        checkpoint=checkpoint,
    )


def test_what_is_learned_is_the_average() -> None:
    net, seen = slope(), list[dict[str, float]]()
    first = net.weight.item()
    found = average(net, seen)
    assert not found.training
    assert found is not net
    assert first < found.weight.item() < net.weight.item() < 2
    assert seen[-1]["held_out_loss"] == found.weight.item()
    assert [each["step"] for each in seen if "held_out_loss" in each] == [2, 4, 6]
    assert seen[-1]["loss"] < seen[0]["loss"]


def test_an_average_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    checkpoint, seen = Checkpoint(tmp_path / "average.ckpt"), list[dict[str, float]]()
    expected = average(slope(), [])
    with pytest.raises(KeyboardInterrupt):
        average(slope(), [], checkpoint, stop=3)
    found = average(slope(), seen, checkpoint)
    assert seen[0]["step"] == 3
    assert torch.equal(found.weight, expected.weight)
    finished = average(slope(), [], checkpoint)
    assert torch.equal(finished.weight, expected.weight)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt")
    whole, cut = Line(), Line()
    train(whole, 12)

    class Killed(Exception):
        pass

    def until_five(step: int) -> Tensor:
        if step == 5:
            raise Killed
        return cut.loss(step)

    optimizer = torch.optim.SGD(cut.parameters(), lr=0.4)
    schedule = Schedule(12, warmup=2, evaluate_every=4)
    with pytest.raises(Killed):
        fit(
            cut,
            until_five,
            [optimizer],
            schedule,
            evaluate=cut.evaluate,
            progress=nothing,
            checkpoint=checkpoint,
        )
    resumed = Line()
    steps = [step for step, _, _ in train(resumed, 12, checkpoint)]
    assert steps == list(range(5, 13))  # four were done when the checkpoint was written
    assert resumed.slope.item() == pytest.approx(whole.slope.item())


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt")
    train(Line(), 8, checkpoint)
    again = Line()
    assert train(again, 8, checkpoint) == []
    assert again.slope.item() != 0
    assert list(tmp_path.iterdir()) == [tmp_path / "state.pt"]


@pytest.mark.parametrize("chance", [0.05, 0.15, 0.5])
def test_dropout_zeroes_the_share_asked_for_and_keeps_the_mean(chance: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(401, 1003), chance)
    assert (dropped == 0).float().mean().item() == pytest.approx(chance, abs=0.004)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    # Eight elements share a draw: none of the eight places may be favoured.
    by_place = (dropped.flatten()[: 401 * 1003 // 8 * 8].view(-1, 8) == 0).float().mean(0)
    assert by_place.max() - by_place.min() < 0.01


def test_dropout_of_nothing_is_the_tensor_itself() -> None:
    x = torch.ones(3)
    assert dropout(x, 0.0) is x


def test_dropout_keeps_the_dtype_and_passes_gradients_where_kept() -> None:
    x = torch.ones(10, 10, dtype=torch.bfloat16, requires_grad=True)
    dropped = dropout(x, 0.5)
    torch.autograd.backward(dropped.sum())
    assert dropped.dtype == torch.bfloat16
    assert x.grad is not None
    assert torch.equal(x.grad != 0, dropped != 0)
    assert math.isfinite(float(x.grad.sum()))


def test_a_late_decay_holds_the_full_rate_and_then_falls_to_zero() -> None:
    schedule = Schedule(100, warmup=10, evaluate_every=10, decay=0.5)
    assert [schedule.rate(step) for step in (10, 30, 55)] == [1, 1, 1]
    assert schedule.rate(78) == pytest.approx(22 / 45)
    assert schedule.rate(99) == pytest.approx(1 / 45)


class Words(nn.Module):
    """Token ids to logits, with one weight of every kind, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.matrix = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("shift", torch.rand(8))

    def forward(self, ids: Tensor) -> Tensor:
        mixed = self.norm(self.matrix(self.embedding(ids)) + self.get_buffer("shift"))
        return nn.functional.linear(mixed, self.embedding.weight)


def test_muon_takes_the_matrices_and_every_weight_has_one_optimizer() -> None:
    model = Words()
    muon, adam = optimizers(model, Rates(matrix=1e-3, other=2e-3, weight_decay=0.0))
    taken = [[id(each) for group in one.param_groups for each in group["params"]] for one in (muon, adam)]
    assert taken[0] == [id(model.matrix.weight)]
    assert sorted(taken[0] + taken[1]) == sorted(id(each) for each in model.parameters())
    assert [one.param_groups[0]["lr"] for one in (muon, adam)] == [1e-3, 2e-3]


def test_half_precision_is_near_and_its_gradients_reach_the_weights() -> None:
    torch.manual_seed(0)
    model, ids = Words(), torch.randint(30, (2, 5))
    reduced = in_bfloat16(model, ids)
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, model(ids), rtol=0.1, atol=0.1)
    torch.autograd.backward(reduced.sum())
    assert all(each.grad is not None and each.grad.dtype == torch.float32 for each in model.parameters())
