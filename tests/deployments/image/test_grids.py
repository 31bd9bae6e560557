import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.image.grids import cumulative_alphas, flow_levels, noise_ratios, shifted, times

STEPS = st.integers(1, 200)


@given(STEPS, st.sampled_from(["even", "trained"]), st.floats(0.2, 10))
def test_flow_levels_fall_from_noise_to_data(steps: int, spacing: str, shift: float) -> None:
    levels = flow_levels(steps, spacing=spacing, shift=shift)  # type: ignore[arg-type]
    assert len(levels) == steps + 1
    assert (levels[0], levels[-1]) == (1, 0)
    assert (np.diff(levels) < 0).all()


def test_even_steps_are_equally_long() -> None:
    assert np.allclose(flow_levels(4), [1, 0.75, 0.5, 0.25, 0])


def test_a_shift_spends_more_steps_on_noise() -> None:
    assert shifted(0.5, 3.0) == 0.75
    assert (flow_levels(8, shift=3.0)[1:-1] > flow_levels(8)[1:-1]).all()


@given(STEPS, st.sampled_from(["leading", "trailing", "linspace"]), st.integers(0, 1), st.booleans())
def test_times_are_places_among_the_trained(steps: int, spacing: str, beyond: int, whole: bool) -> None:
    grid = times(spacing, steps, offset=1, whole=whole, beyond=beyond)  # type: ignore[arg-type]
    assert len(grid) == steps
    assert (np.diff(grid) < 0).all()
    assert 0 <= grid[-1] <= grid[0] <= 999
    assert not whole or (grid == grid.round()).all()


def test_times_as_they_are_named() -> None:
    assert times("leading", 4).tolist() == [750, 500, 250, 0]
    assert times("leading", 4, offset=1).tolist() == [751, 501, 251, 1]
    assert times("trailing", 4).tolist() == [999, 749, 499, 249]
    assert times("linspace", 4).tolist() == [999, 666, 333, 0]
    assert times("linspace", 3, whole=False).tolist() == [999, 499.5, 0]
    assert times("leading", 4, beyond=1).tolist() == [800, 600, 400, 200]


def test_as_many_steps_as_times() -> None:
    """With an offset the first would lie behind the last trained time."""
    assert times("leading", 1000, offset=1)[0] == 999


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_grows_with_time(schedule: str, zero_snr: bool) -> None:
    alphas = cumulative_alphas(schedule, 0.00085, 0.012, zero_snr=zero_snr)  # type: ignore[arg-type]
    assert alphas[0] == pytest.approx(1 - 0.00085)
    assert (np.diff(alphas) < 0).all()
    assert (alphas[-1] == 0) == zero_snr
    assert (np.diff(noise_ratios(alphas)) > 0).all()
    assert np.isfinite(noise_ratios(alphas)).all()
