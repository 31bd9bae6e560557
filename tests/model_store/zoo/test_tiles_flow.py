from pathlib import Path

import pytest
import torch

from model_store.export.draft import Draft
from model_store.zoo import tiles, tiles_flow, tiles_matcher
from model_store.zoo.tiles_flow import Recipe, Trained
from model_store.zoo.tiles_net import TextToImage
from model_store.zoo.training import Checkpoint
from tests.model_store.zoo import tiny_nets
from tests.model_store.zoo.neighbours import check_rows
from tests.model_store.zoo.recipes import published
from tests.model_store.zoo.tiny_fashion import Steps
from tests.model_store.zoo.tiny_nets import WORDS, made_by
from tests.model_store.zoo.tiny_tiles import write_tiny_tiles
from tests.model_store.zoo.weights import awake

BRIEF = Recipe(steps=3, batch=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tiles(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path) -> Trained:
    return tiles_flow.train(data, Steps(), BRIEF, WORDS)


@pytest.fixture(scope="module")
def drafted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    work = tmp_path_factory.mktemp("work")
    tiles_matcher.appoint(data, work, Steps(), tiles_matcher.Recipe(steps=1, batch=8))
    trained = tiles_flow.train(data, Steps(), BRIEF, WORDS)
    awake(trained.model)
    return made_by(tiles_flow.draft(trained, data, work, Steps(), BRIEF), tiny_nets.text_to_image)


def test_training_tells_every_step_and_comes_ready(data: Path) -> None:
    steps = Steps()
    assert not tiles_flow.train(data, steps, BRIEF, WORDS).model.training
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
    assert set(steps.figures) == {"loss", "held_out_loss"}


def test_training_goes_on_where_it_stopped(data: Path, trained: Trained, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, total: int, figures: object) -> None:
        if step == 2:
            raise Stop

    checkpoint = Checkpoint(tmp_path / "flow.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles_flow, "EVALUATE_EVERY", 1)
        with pytest.raises(Stop):
            tiles_flow.train(data, stop, BRIEF, WORDS, checkpoint)
        steps = Steps()
        again = tiles_flow.train(data, steps, BRIEF, WORDS, checkpoint)
    assert steps.seen == [(3, 3)]
    expected = trained.model.state_dict()
    assert all(
        torch.allclose(value, expected[name], atol=1e-6) for name, value in again.model.state_dict().items()
    )


class Toward(TextToImage):
    """Always moves straight to the number that its context says."""

    def condition(self, text: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return torch.full((len(text), 24, 8), 0.2) * (length > 0)[:, None, None]

    def denoise(self, latent: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        goal = context.mean((1, 2))[:, None, None, None]
        return (goal - latent) / (1 - time)[:, None, None, None]


@pytest.mark.parametrize(("guidance", "colour"), [(1.0, 0.6), (3.0, 0.8)])
def test_steps_lead_from_noise_to_what_is_asked_for(trained: Trained, guidance: float, colour: float) -> None:
    found = Trained(Toward(WORDS), trained.tokenizer).draw(["red ring", "sword"], 0, 5, guidance)
    assert torch.allclose(found[:, :3], torch.full((2, 3, 32, 32), colour), atol=1e-5)


def test_pictures_depend_on_the_seed_and_not_on_how_many_are_made_at_once(trained: Trained) -> None:
    prompts = ["red ring, item", "blue dragon, monster", ""]
    first, other = (trained.draw(prompts, seed, steps=2) for seed in (1, 2))
    assert first.shape == (3, 4, 32, 32)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.allclose(first, trained.draw(prompts, 1, steps=2, at_once=2), atol=1e-5)
    assert not torch.equal(first, other)


def test_a_copy_is_seen(data: Path) -> None:
    known, _ = tiles.read_split(data)
    assert tiles_flow.copies(known.pixels[:5], known) == 1.0
    assert tiles_flow.copies(1 - known.pixels[:5], known) == 0.0


def test_a_sheet_has_a_row_for_each_prompt(trained: Trained) -> None:
    assert tiles_flow.sheet(trained, ["red ring", "sword"], each=2).size[1] == 2 * 68


def test_a_draft_says_how_good_the_model_is(drafted: Draft) -> None:
    assert (drafted.name, drafted.family, drafted.provenance.steps) == ("tiles-flow", "flow", 3)
    assert set(drafted.quality) == {"caption_top1_of_50", "caption_top5_of_50", "copies"}
    assert all(each.baseline is not None for each in drafted.quality.values())
    assert "tokenizer.json" in drafted.files


def test_what_is_trained_can_be_published_and_its_rows_are_their_own(drafted: Draft, tmp_path: Path) -> None:
    package = published(drafted, tmp_path)
    image = package.manifest.image
    assert image is not None
    [prompt] = image.prompt
    assert (prompt.length, prompt.role, prompt.count) == (24, "text", "length")
    check_rows(package, drafted)


def test_the_shipped_net_is_as_small_as_it_says() -> None:
    assert 4_000_000 < sum(each.numel() for each in TextToImage().parameters()) < 4_600_000
