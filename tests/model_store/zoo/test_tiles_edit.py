from pathlib import Path

import pytest
import torch

from model_store.export.draft import Draft
from model_store.zoo import tiles_edit
from model_store.zoo.tiles_damage import TASKS, luminance
from model_store.zoo.tiles_edit import Editor, Recipe
from model_store.zoo.training import Checkpoint
from tests.model_store.zoo import tiny_nets
from tests.model_store.zoo.neighbours import check_rows
from tests.model_store.zoo.recipes import published
from tests.model_store.zoo.tiny_fashion import Steps
from tests.model_store.zoo.tiny_nets import EDITOR, made_by
from tests.model_store.zoo.tiny_tiles import write_tiny_tiles
from tests.model_store.zoo.weights import awake

BRIEF = Recipe(steps=3, batch=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tiles(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model() -> Editor:
    torch.manual_seed(0)
    return awake(Editor(EDITOR))


@pytest.fixture(scope="module")
def drafted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    trained = awake(tiles_edit.train(data, Steps(), BRIEF, EDITOR))
    draft = tiles_edit.draft(trained, data, tmp_path_factory.mktemp("work"), Steps(), BRIEF)
    return made_by(draft, tiny_nets.editor)


def images(count: int, high: int = 32, wide: int = 32) -> torch.Tensor:
    drawn = torch.rand(count, 4, high, wide, generator=torch.Generator().manual_seed(1))
    drawn[:, 3] = 1.0
    return drawn


def run(net: Editor, task: str, shown: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    mask = torch.zeros_like(shown[:, :1]) if mask is None else mask
    with torch.no_grad():
        found: torch.Tensor = net(shown, mask, torch.full((len(shown),), TASKS.index(task)))
    assert 0 <= found.min() <= found.max() <= 1
    return found


def test_the_task_matters(model: Editor) -> None:
    colorized, upscaled, denoised = (run(model, task, images(1)) for task in TASKS[1:])
    assert not torch.allclose(upscaled, denoised, atol=1e-3)
    assert not torch.allclose(colorized, denoised, atol=1e-3)


def test_pixels_outside_the_hole_stay(model: Editor) -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 5:12, 5:12] = 1.0
    found = run(model, "inpaint", images(2), mask)
    assert torch.equal(found * (1 - mask), images(2) * (1 - mask))
    assert not torch.allclose(found * mask, images(2) * mask, atol=1e-2)


def test_what_is_in_the_hole_is_not_looked_at(model: Editor) -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[:, :, 5:12, 5:12] = 1.0
    other = torch.where(mask > 0, 0.123, images(1))
    assert torch.equal(run(model, "inpaint", images(1), mask), run(model, "inpaint", other, mask))


@pytest.mark.parametrize("task", TASKS[1:])
def test_a_mask_says_something_to_inpaint_alone(model: Editor, task: str) -> None:
    assert torch.equal(run(model, task, images(1)), run(model, task, images(1), torch.ones(1, 1, 32, 32)))


def test_colours_of_what_is_to_be_coloured_are_not_looked_at(model: Editor) -> None:
    grey = torch.cat([luminance(images(1)).expand(-1, 3, -1, -1), images(1)[:, 3:]], dim=1)
    found = run(model, "colorize", images(1))
    assert torch.allclose(found, run(model, "colorize", grey), atol=1e-5)


@torch.no_grad()
def test_brightness_and_alpha_stay(model: Editor) -> None:
    shown = images(1)
    shown[:, 3] = 0.5
    nothing, zero = torch.zeros(1, 1, 32, 32), torch.zeros(1, dtype=torch.int64)
    coloured = model.restore(shown, nothing, zero + 1)
    assert torch.allclose(luminance(coloured), luminance(shown), atol=1e-5)
    assert torch.equal(coloured[:, 3], shown[:, 3])
    assert torch.equal(model.restore(shown, nothing, zero + 3)[:, 3], shown[:, 3])
    assert not torch.equal(model.restore(shown, nothing, zero + 2)[:, 3], shown[:, 3])


@pytest.mark.parametrize(("high", "wide"), [(32, 64), (33, 47), (7, 5)])
def test_pictures_have_any_size(model: Editor, high: int, wide: int) -> None:
    assert run(model, "denoise", images(1, high, wide)).shape == (1, 4, high, wide)


def test_rows_do_not_see_each_other(model: Editor) -> None:
    task, mask = torch.arange(4), torch.zeros(4, 1, 32, 32)
    mask[:, :, 3:9, 3:9] = 1.0
    with torch.no_grad():
        together = model.restore(images(4), mask, task)
        for row in range(4):
            alone = model.restore(*(each[row : row + 1] for each in (images(4), mask, task)))
            assert torch.allclose(alone[0], together[row], atol=1e-3)


def test_an_untrained_net_leaves_pictures_as_they_are() -> None:
    assert torch.allclose(run(Editor(EDITOR), "denoise", images(2)), images(2), atol=1e-6)


def test_each_task_gets_its_share(data: Path) -> None:
    shown, lost, task, right = tiles_edit.damaged(images(8), torch.Generator().manual_seed(0))
    assert task.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(right[2:4], images(8)[1::4])
    assert lost.flatten(1).any(1).tolist() == [True] * 2 + [False] * 6
    assert shown.shape == right.shape


def test_what_is_right_costs_nothing(model: Editor) -> None:
    class Right(Editor):
        def restore(self, shown: torch.Tensor, lost: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            return batch[3]

    batch = tiles_edit.damaged(images(4), torch.Generator().manual_seed(0))
    assert tiles_edit.loss_of(Right(EDITOR), batch, 0.1).item() == pytest.approx(0.0, abs=1e-5)
    assert tiles_edit.loss_of(model, batch, 0.1).item() > 0.1


def test_training_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    whole, steps = tiles_edit.train(data, Steps(), BRIEF, EDITOR), Steps()
    checkpoint = Checkpoint(tmp_path / "edit.ckpt")
    tiles_edit.train(data, Steps(), BRIEF, EDITOR, checkpoint)
    again = tiles_edit.train(data, steps, BRIEF, EDITOR, checkpoint)
    assert steps.seen == []
    expected = whole.state_dict()
    assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in again.state_dict().items())


def test_training_makes_it_better(data: Path) -> None:
    steps = Steps()
    tiles_edit.train(data, steps, Recipe(steps=1, batch=16), EDITOR)
    before = steps.figures["held_out_loss"]
    tiles_edit.train(data, steps, Recipe(steps=40, batch=16, learning_rate=5e-3, averaging=0.5), EDITOR)
    assert steps.figures["held_out_loss"] < before


def test_a_draft_says_how_good_the_model_is(drafted: Draft) -> None:
    assert (drafted.name, drafted.task, drafted.provenance.steps) == ("tiles-edit", "image-to-image", 3)
    assert set(drafted.quality) == {
        f"{task}_{name}" for task in TASKS for name in ("psnr", "psnr_of_each", "ssim")
    }
    assert all(each.baseline is not None for each in drafted.quality.values())


def test_what_is_trained_can_be_published_and_its_rows_are_their_own(drafted: Draft, tmp_path: Path) -> None:
    package = published(drafted, tmp_path)
    image = package.manifest.image
    assert image is not None
    assert image.edit is not None
    assert image.edit.tasks == TASKS
    check_rows(package, drafted)


def test_the_shipped_net_is_as_small_as_it_says() -> None:
    assert 1_400_000 < sum(each.numel() for each in Editor().parameters()) < 1_600_000


def test_a_sheet_shows_every_task(model: Editor) -> None:
    assert tiles_edit.sheet(model, images(2)).size[1] == 16 * 68
