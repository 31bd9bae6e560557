import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_store.zoo import series_ae
from model_store.zoo.series_net import MOST, Autoencoder, Config, Tail

TINY = Config(window=96, past=8, shape=6, apart=8, width=8, latent=4)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(TINY).eval()


def waves(count: int, steps: int, seed: int = 0) -> Tensor:
    noise = torch.randn(count, steps, generator=torch.Generator().manual_seed(seed))
    return torch.sin(torch.arange(steps) / 3 + torch.arange(count)[:, None]) + 0.1 * noise


@torch.no_grad()
def judged(model: Autoencoder, values: Tensor, known: Tensor | None = None) -> tuple[Tensor, ...]:
    told = torch.ones_like(values) if known is None else known
    return model.reconstruct(values.unsqueeze(2), told.unsqueeze(2))


@torch.no_grad()
def test_a_step_is_foretold_by_those_before_it(model: Autoencoder) -> None:
    values = waves(2, 40)
    expected, spread, _, latent = model.expect(values, torch.ones_like(values))
    assert expected.shape == spread.shape == (2, 40)
    assert latent.shape == (2, TINY.latent, 40)
    other = values.clone()
    other[:, 20:] += 5
    again, wide, _, _ = model.expect(other, torch.ones_like(values))
    assert torch.equal(expected[:, :21], again[:, :21])
    assert torch.equal(spread[:, :21], wide[:, :21])
    assert not torch.equal(expected[:, 21], again[:, 21])


@torch.no_grad()
def test_steps_further_back_are_forgotten(model: Autoencoder) -> None:
    values = waves(1, 40)
    other = values.clone()
    other[:, :10] += 5
    told = torch.ones_like(values)
    first, second = (model.expect(each, told)[0][:, 10 + TINY.past :] for each in (values, other))
    torch.testing.assert_close(first, second)


def test_what_is_not_known_is_nothing_to_go_by(model: Autoencoder) -> None:
    values, known = waves(2, TINY.window), torch.ones(2, TINY.window)
    known[:, :30] = 0
    known[:, 60] = 0
    for first, second in zip(
        judged(model, values, known), judged(model, values + 9 * (1 - known), known), strict=True
    ):
        assert torch.equal(first, second)


def test_a_missing_last_step_is_not_strange(model: Autoencoder) -> None:
    known = torch.ones(1, TINY.window)
    known[:, -1] = 0
    assert all(each.item() == 0 for each in judged(model, waves(1, TINY.window), known)[2:])


def test_the_first_steps_are_not_strange(model: Autoencoder) -> None:
    known = torch.zeros(1, TINY.window)
    known[:, -5:] = 1
    assert judged(model, waves(1, TINY.window), known)[2].item() == 0


def test_a_jump_is_strange_by_level_and_surprise(model: Autoencoder) -> None:
    values = waves(1, TINY.window)
    _, _, strange, level, surprise, shape = judged(model, values)
    jumped = values.clone()
    jumped[:, -1] += 6
    _, _, more, higher, farther, other = judged(model, jumped)
    assert higher > level
    assert farther > surprise
    assert other > shape
    assert more > strange
    assert torch.equal(more, higher + farther + other)


def test_a_new_shape_within_the_old_levels_is_strange(model: Autoencoder) -> None:
    values = waves(1, TINY.window)
    flat = values.clone()
    flat[:, -TINY.shape :] = 0.5
    assert judged(model, flat)[5] > judged(model, values)[5] + 1


def test_a_constant_window_is_not_strange(model: Autoencoder) -> None:
    """Nothing is beyond a tail that is where it is itself."""
    usual = judged(model, waves(1, TINY.window))[2]
    assert judged(model, torch.zeros(1, TINY.window))[2] < usual + MOST / 3


def test_a_stretch_is_judged_window_by_window(model: Autoencoder) -> None:
    values = waves(1, TINY.window + 9)
    windows = values[0].unfold(0, TINY.window, 1)
    with torch.no_grad():
        found = model.judge(values, torch.ones_like(values))
    each = judged(model, windows)[2:]
    for whole, own in zip(found[:3], each[:3], strict=True):
        assert whole.shape == own.shape == (10,)
    torch.testing.assert_close(found[1], each[1])
    torch.testing.assert_close(found[3][0], each[3][0])


def test_a_stretch_of_one_window_is_that_window(model: Autoencoder) -> None:
    values = waves(1, TINY.window)
    with torch.no_grad():
        found = model.judge(values, torch.ones_like(values))
    torch.testing.assert_close(torch.stack(found), torch.stack(judged(model, values)[2:]))


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-100, 100))
def test_tails_know_no_unit(seed: int, unit: float, level: float) -> None:
    values = torch.randn(3, 60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    known = torch.ones_like(values)
    tail = Tail(59)
    torch.testing.assert_close(tail(values * unit + level, known), tail(values, known), rtol=1e-2, atol=1e-2)


def test_a_tail_is_exponential_beyond_its_start() -> None:
    values = torch.arange(101.0).repeat(2, 1)
    values[:, -1] = torch.tensor([150.0, 96.0])
    far, inside = Tail(100)(values, torch.ones_like(values)).tolist()
    # The three largest of 100 are on average 2 beyond the fourth; a twentieth of the deviation is 1.44.
    assert far == pytest.approx((150 - 96) / (2 + 0.05 * 28.866) + math.log(100 / 3), rel=1e-4)
    assert inside == pytest.approx(math.log(100 / 3), rel=1e-4)


def test_a_tail_says_so_much_at_most() -> None:
    values = torch.randn(1, 60)
    values[:, -1] = 1e9
    assert Tail(59)(values, torch.ones_like(values)).item() == MOST


STEPS = np.arange(400.0)
REGULAR = {
    "constant": np.full(400, 7.0),
    "line": 0.1 * STEPS,
    "sine": 1000 + 50 * np.sin(STEPS / 10),
    "tiny sine": 1 + 1e-6 * np.sin(STEPS / 10),
    "sawtooth": STEPS % 25,
    "triangle": np.abs(STEPS % 40 - 20),
    "square": STEPS // 10 % 2,
}


@pytest.mark.parametrize("name", REGULAR)
def test_what_only_repeats_itself_is_not_strange(model: Autoencoder, name: str) -> None:
    """Rounding alone makes no step as strange as what it was rounded from is regular."""
    found = series_ae.scores(model, REGULAR[name], block=32)["strangeness"]
    assert found[TINY.window :].max() < 0.5 * MOST


@pytest.mark.parametrize("name", REGULAR)
def test_what_does_not_repeat_itself_is(model: Autoencoder, name: str) -> None:
    values = REGULAR[name].copy()
    values[300] += 7 * (values.std() or 1.0)
    found = series_ae.scores(model, values, block=32)["strangeness"]
    assert found.argmax() == 300
    assert found[300] > MOST
    assert found[TINY.window : 300].max() < 0.5 * MOST


def test_a_tail_is_so_wide_at_least() -> None:
    values = torch.zeros(2, 60)
    values[:, -1] = torch.tensor([0.1, 0.5])
    near, far = Tail(59, least=0.1)(values, torch.ones_like(values)).tolist()
    assert near == pytest.approx(1 + math.log(59 / 3), rel=1e-4)
    assert far == pytest.approx(5 + math.log(59 / 3), rel=1e-4)
