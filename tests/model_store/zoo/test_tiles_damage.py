import pytest
import torch

from model_store.zoo import tiles_damage
from model_store.zoo.tiles_damage import BASELINES, NOISE, TASKS, damage


def pictures(count: int = 6) -> torch.Tensor:
    drawn = torch.rand(count, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    drawn[:, 3] = (drawn[:, 3] > 0.3).float()
    drawn[:, :3] *= drawn[:, 3:]
    return drawn


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("task", TASKS)
def test_damage_depends_on_the_generator_alone_and_stays_a_picture(task: str) -> None:
    (shown, lost), (again, _) = (damage(task, pictures(), chance()) for _ in range(2))
    assert torch.equal(shown, again)
    assert (shown.shape, lost.shape) == ((6, 4, 32, 32), (6, 1, 32, 32))
    assert 0 <= shown.min() <= shown.max() <= 1
    assert (shown[:, :3] <= shown[:, 3:] + 1e-6).all()
    assert not torch.allclose(shown, pictures(), atol=1e-3)
    assert bool(lost.any()) is (task == "inpaint")


def test_a_hole_is_empty_and_the_rest_as_it_was() -> None:
    shown, lost = damage("inpaint", pictures(), chance())
    assert not (shown * lost).any()
    assert torch.equal(shown * (1 - lost), pictures() * (1 - lost))
    assert (lost.mean((1, 2, 3)) > 0.005).all()
    assert (lost.mean((1, 2, 3)) < 0.6).all()


def test_a_picture_of_nothing_has_holes_too() -> None:
    assert damage("inpaint", torch.zeros(2, 4, 32, 32), chance())[1].any()


def test_grey_has_the_brightness_of_the_colours() -> None:
    shown, _ = damage("colorize", pictures(), chance())
    assert torch.allclose(tiles_damage.luminance(shown), tiles_damage.luminance(pictures()), atol=1e-6)
    assert torch.equal(shown[:, 0], shown[:, 2])
    assert torch.equal(shown[:, 3], pictures()[:, 3])


def test_what_is_to_be_enlarged_has_each_pixel_four_times() -> None:
    shown, _ = damage("upscale", pictures(), chance())
    assert torch.equal(shown[:, :, ::2, ::2], shown[:, :, 1::2, 1::2])
    assert torch.allclose(shown.mean((2, 3)), pictures().mean((2, 3)), atol=1e-6)


def test_noise_is_as_strong_as_asked_and_only_where_something_is_seen() -> None:
    half = torch.full((8, 4, 32, 32), 0.5)
    half[:, 3] = 1.0
    half[:, :, :8] = 0.0
    shown, _ = damage("denoise", half, chance(), noise=NOISE)
    assert not shown[:, :, :8].any()
    assert (shown - half)[:, :3, 8:].std().item() == pytest.approx(NOISE, rel=0.05)
    drawn, _ = damage("denoise", half, chance())
    spread = (drawn - half)[:, :3, 8:].flatten(1).std(1)
    assert spread.max() > 1.5 * spread.min()


def hole() -> torch.Tensor:
    lost = torch.zeros(1, 1, 32, 32)
    lost[:, :, 10:20, 10:20] = 1.0
    return lost


def test_a_hole_in_one_colour_is_filled_with_it() -> None:
    plain = torch.full((1, 4, 32, 32), 0.4)
    for fill in BASELINES["inpaint"].values():
        assert torch.allclose(fill(plain * (1 - hole()), hole()), plain, atol=1e-6)


def test_the_nearest_pixel_is_the_nearest() -> None:
    sides = torch.zeros(1, 4, 32, 32)
    sides[:, :, :, 15:] = 1.0
    found = tiles_damage.nearest_fill(sides * (1 - hole()), hole())
    assert (found[0, 0, 15, 10:14] == 0).all()
    assert (found[0, 0, 15, 16:20] == 1).all()


@pytest.mark.parametrize("task", TASKS)
def test_what_needs_no_model_keeps_a_plain_picture(task: str) -> None:
    plain = torch.full((1, 4, 32, 32), 0.5)
    for fill in BASELINES[task].values():
        assert torch.allclose(fill(plain, torch.zeros(1, 1, 32, 32)), plain, atol=1e-5)


def test_a_median_forgets_a_single_pixel() -> None:
    spot = torch.full((1, 4, 32, 32), 0.5)
    spot[0, :3, 7, 7] = 1.0
    assert torch.allclose(tiles_damage.median(spot, hole()), torch.full((1, 4, 32, 32), 0.5))


def test_decibels_and_likeness_of_what_is_right_are_the_best() -> None:
    whole = torch.zeros(6, 1, 32, 32)
    assert tiles_damage.decibels(pictures(), pictures(), whole) == pytest.approx(50.0)
    assert tiles_damage.similarity(pictures(), pictures(), whole) == pytest.approx(1.0, abs=1e-4)


def test_decibels_of_a_known_error() -> None:
    right = torch.zeros(1, 4, 32, 32)
    right[:, 3] = 1.0
    wrong = right.clone()
    wrong[:, :3] = 0.1
    assert tiles_damage.decibels(wrong, right, torch.zeros(1, 1, 32, 32)) == pytest.approx(20.0, abs=1e-3)


def test_decibels_of_all_pixels_and_of_each_picture() -> None:
    """One picture wrong by a tenth, one right (50 dB): half the square error, and the mean of 20 and 50."""
    right = torch.cat([torch.zeros(2, 3, 32, 32), torch.ones(2, 1, 32, 32)], dim=1)
    wrong = right.clone()
    wrong[0, :3] = 0.1
    whole = torch.zeros(2, 1, 32, 32)
    assert tiles_damage.decibels(wrong, right, whole) == pytest.approx(23.01, abs=0.01)
    assert tiles_damage.mean_decibels(wrong, right, whole) == pytest.approx(35.0, abs=0.01)


def test_where_there_is_a_hole_it_alone_counts() -> None:
    right = torch.full((1, 4, 32, 32), 0.5)
    outside = right.clone()
    outside[:, :, :4] += 0.3
    assert tiles_damage.decibels(outside, right, hole()) == pytest.approx(50.0)
    assert tiles_damage.decibels(outside, right, torch.zeros_like(hole())) < 30
    assert tiles_damage.similarity(outside, right, hole()) == pytest.approx(1.0, abs=1e-4)
    assert tiles_damage.similarity(outside, right, torch.zeros_like(hole())) < 0.99
