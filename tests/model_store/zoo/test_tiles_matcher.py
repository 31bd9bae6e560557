from pathlib import Path

import pytest
import torch

from model_store.zoo import tiles, tiles_matcher
from model_store.zoo.tiles_matcher import Judge, Matcher, Recipe
from model_store.zoo.tiles_prompts import encode, make_tokenizer
from model_store.zoo.training import Checkpoint
from tests.model_store.zoo.tiny_fashion import Steps
from tests.model_store.zoo.tiny_tiles import write_tiny_tiles

BRIEF = Recipe(steps=2, batch=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tiles(tmp_path_factory.mktemp("data"))


class Fixed(Matcher):
    """Sees in a picture what its first pixels say, and reads the same numbers out of a caption."""

    def pictures(self, tiles: torch.Tensor) -> torch.Tensor:
        return tiles[:, 0, 0, :26]

    def captions(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.eye(26)[ids[:, 0] - int(encode(TOKENIZER, ["a"])[0][0, 0])]


TOKENIZER = make_tokenizer(["a b c d e f g h i j k l m n o p q r s t u v w x y z"] * 3, 290)


def test_a_rank_counts_what_fits_better() -> None:
    letters = [chr(ord("a") + number) for number in range(26)]
    ids, _ = encode(TOKENIZER, letters)
    order = torch.argsort(ids[:, 0] - ids[0, 0])
    pictures = torch.zeros(1, 4, 32, 32)
    pictures[0, 0, 0, :26] = torch.arange(26.0)
    ranked = [letters[int(place)] for place in order]
    judge = Judge(Fixed(), TOKENIZER)
    assert judge.ranks(pictures, [ranked[25]], letters) == [0]
    assert judge.ranks(pictures, [ranked[20]], letters) == [5]
    assert judge.top(pictures, [ranked[21]], letters) == 1.0
    assert judge.top(pictures, [ranked[20]], letters) == 0.0


def test_no_more_than_fifty_captions_are_compared() -> None:
    torch.manual_seed(0)
    judge = Judge(Matcher().eval(), TOKENIZER)
    others = [f"thing {number}" for number in range(400)]
    pictures = torch.rand(30, 4, 32, 32)
    ranks = judge.ranks(pictures, others[:30], others)
    assert 5 < max(ranks) <= 49
    assert ranks == judge.ranks(pictures, others[:30], others)


def test_equal_captions_are_equally_right() -> None:
    likeness = torch.full((2, 2), 20.0)
    assert tiles_matcher.contrast(likeness, ["rat", "rat"]).item() == pytest.approx(0.6931, abs=1e-3)
    good = torch.tensor([[20.0, 0.0], [0.0, 20.0]])
    assert tiles_matcher.contrast(good, ["rat", "bat"]).item() == pytest.approx(0.0, abs=1e-3)
    assert tiles_matcher.contrast(good, ["rat", "rat"]).item() > 5


@torch.no_grad()
def test_the_order_of_words_says_nothing() -> None:
    torch.manual_seed(0)
    model = Matcher().eval()
    first, second = (model.captions(*encode(TOKENIZER, [text])) for text in ("a b c", "c a b"))
    assert torch.allclose(first, second, atol=1e-6)
    assert torch.allclose(first.norm(dim=1), torch.ones(1))


def test_training_tells_how_often_it_is_right(data: Path) -> None:
    steps = Steps()
    judge = tiles_matcher.train(data, steps, BRIEF)
    assert not judge.model.training
    assert steps.seen == [(1, 2), (2, 2)]
    assert 0 <= steps.figures["top5_of_50"] <= 1


def test_training_goes_on_from_a_checkpoint(data: Path, tmp_path: Path) -> None:
    whole = tiles_matcher.train(data, Steps(), BRIEF, Checkpoint(tmp_path / "a.ckpt"))
    steps = Steps()
    again = tiles_matcher.train(data, steps, BRIEF, Checkpoint(tmp_path / "a.ckpt"))
    assert steps.seen == []
    assert all(
        torch.equal(value, again.model.state_dict()[name]) for name, value in whole.model.state_dict().items()
    )


def test_a_judge_is_kept_for_the_next_model(data: Path, tmp_path: Path) -> None:
    first = tiles_matcher.appoint(data, tmp_path, Steps(), BRIEF)
    steps = Steps()
    second = tiles_matcher.appoint(data, tmp_path, steps, BRIEF)
    assert steps.seen == []
    _, held = tiles.read_split(data)
    texts = [str(each) for each in held.captions]
    assert first.ranks(held.pixels, texts, texts) == second.ranks(held.pixels, texts, texts)
