import pytest
import torch
from torch import Tensor, nn

from model_store.zoo import flow


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def growing(latent: Tensor, _: Tensor) -> Tensor:
    """Follow dx/dt = x: a start grows e-fold."""
    return latent


class Asked:
    """A constant velocity that remembers the times it was asked for."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, latent: Tensor, time: Tensor) -> Tensor:
        self.times += time.tolist()
        return torch.full_like(latent, 3.0)


def test_a_line_leads_from_start_to_end() -> None:
    start, end = torch.zeros(3, 1, 2, 2), torch.full((3, 1, 2, 2), 4.0)
    seen = flow.between(start, end, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(seen[:, 0, 0, 0], torch.tensor([0.0, 1.0, 4.0]))


def test_time_is_told_by_chebyshev_polynomials() -> None:
    time = torch.tensor([0.0, 0.1, 0.5, 0.77, 1.0])
    angle = (2 * time - 1).arccos()
    expected = torch.stack([(degree * angle).cos() for degree in (1, 2, 3, 4)], dim=1)
    assert torch.allclose(flow.chebyshev(time, 4), expected, atol=1e-5)


def test_most_times_are_in_the_middle() -> None:
    times = flow.logit_normal(4_000, generator())
    assert 0 < times.min() < times.max() < 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.02)
    assert ((times > 0.25) & (times < 0.75)).float().mean() > 0.65


def test_who_knows_the_data_has_no_loss() -> None:
    data = torch.full((8, 1, 2, 2), 0.5)

    def knowing(latent: Tensor, time: Tensor) -> Tensor:
        return (0.5 - latent) / (1 - flow.spread(time, latent))

    assert flow.matching_loss(knowing, data, generator()).item() == pytest.approx(0, abs=1e-8)
    assert flow.matching_loss(growing, data, generator()).item() > 0.1


def test_guidance_goes_further_than_what_is_wanted() -> None:
    asked = []

    def net(latent: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        asked.append(len(latent))
        return condition * (1 + time)[:, None]

    wanted, nothing = torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0]])
    time = torch.tensor([0.0, 0.5])
    plain, strong = (flow.guided(net, wanted, nothing, scale)(wanted, time) for scale in (1.0, 3.0))
    assert torch.equal(plain, torch.tensor([[2.0], [6.0]]))
    assert torch.equal(strong, torch.tensor([[4.0], [15.0]]))
    assert asked == [2, 4]


@pytest.mark.parametrize("solver", [flow.euler, flow.heun])
def test_a_straight_way_needs_one_step(solver: flow.Solver) -> None:
    noise = torch.randn(2, 1, 3, 3)
    for steps in (1, 2, 5):
        assert torch.allclose(solver(Asked(), noise, steps), noise + 3.0, atol=1e-5)


def test_euler_asks_at_the_start_of_every_step() -> None:
    asked = Asked()
    flow.euler(asked, torch.zeros(1, 1), 4)
    assert asked.times == [0.0, 0.25, 0.5, 0.75]


def test_heun_never_asks_where_no_noise_is_left() -> None:
    asked = Asked()
    flow.heun(asked, torch.zeros(1, 1), 2)
    assert asked.times == [0.0, 0.5, 0.5]


@pytest.mark.parametrize(("solver", "gain"), [(flow.euler, 2.0), (flow.heun, 4.0)])
def test_the_error_falls_by_the_solvers_order(solver: flow.Solver, gain: float) -> None:
    start = torch.ones(1, 1, dtype=torch.float64)
    coarse, fine = (float((solver(growing, start, steps) - torch.e).abs()) for steps in (40, 80))
    assert coarse / fine == pytest.approx(gain, rel=0.05)


def test_midpoint_follows_each_row_from_its_own_time() -> None:
    start = torch.tensor([[1.0], [2.0]])

    def doubled(latent: Tensor, time: Tensor) -> Tensor:
        return torch.zeros_like(latent) + 2 * flow.spread(time, latent)

    end = flow.midpoint(doubled, start, torch.tensor([0.0, 0.5]), 0.5, 1)
    assert torch.allclose(end, torch.tensor([[1.25], [2.75]]))
    asked = Asked()
    flow.midpoint(asked, start, torch.tensor([0.5, 0.5]), 0.5, 2)
    assert max(asked.times) < 1


def test_a_student_that_goes_straight_through_each_window_has_no_loss() -> None:
    windows = flow.Windows(count=4, steps=1)

    def teacher(latent: Tensor, time: Tensor) -> Tensor:
        return torch.zeros_like(latent) + 2 * flow.spread(time, latent)

    def student(latent: Tensor, time: Tensor) -> Tensor:
        begin = (4 * time).floor() / 4
        return torch.zeros_like(latent) + flow.spread(2 * begin + 0.25, latent)

    data = torch.randn(64, 1, 2, 2, generator=generator())
    assert windows.loss(student, teacher, data, generator()).item() == pytest.approx(0, abs=1e-6)
    assert windows.loss(teacher, teacher, data, generator()).item() > 1e-3


def test_windows_are_looked_at_mostly_where_they_begin() -> None:
    asked = Asked()
    flow.Windows(count=4, steps=1).loss(asked, growing, torch.zeros(2_000, 1), generator())
    places = torch.tensor(asked.times) * 4 % 1
    assert (places < 0.25).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert {int(4 * time) for time in asked.times} == {0, 1, 2, 3}


def test_a_teacher_is_not_taught() -> None:
    teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    loss = flow.Windows().loss(
        lambda x, _: student(x), lambda x, _: teacher(x), torch.ones(4, 1), generator()
    )
    torch.autograd.backward(loss)
    assert student.weight.grad is not None
    assert teacher.weight.grad is None
