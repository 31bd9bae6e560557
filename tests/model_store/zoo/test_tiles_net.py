import pytest
import torch

from model_store.zoo.tiles_net import Config, TextToImage
from model_store.zoo.tiles_prompts import TOKENS
from tests.model_store.zoo.weights import awake

TINY = Config(fine=8, coarse=16, layers=1, heads=2, words=8, readers=1, condition=8, vocabulary=300)


@pytest.fixture(scope="module")
def model() -> TextToImage:
    torch.manual_seed(0)
    return awake(TextToImage(TINY))


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_an_untrained_net_moves_nothing() -> None:
    net = TextToImage(TINY)
    assert not net(
        latents(2), torch.tensor([0.1, 0.9]), torch.ones(2, TOKENS, dtype=torch.int64), torch.ones(2)
    ).any()


@torch.no_grad()
def test_picture_time_and_words_all_matter(model: TextToImage) -> None:
    context = model.condition(
        torch.tensor([[5] * TOKENS, [6] * TOKENS]), torch.tensor([2, 2], dtype=torch.int32)
    )
    plain = model.denoise(latents(1), torch.tensor([0.3]), context[:1])
    assert plain.shape == (1, 4, 32, 32)
    for other in (
        model.denoise(latents(1) + 0.1, torch.tensor([0.3]), context[:1]),
        model.denoise(latents(1), torch.tensor([0.4]), context[:1]),
        model.denoise(latents(1), torch.tensor([0.3]), context[1:]),
    ):
        assert not torch.allclose(plain, other, atol=1e-4)


@torch.no_grad()
def test_what_lies_behind_a_prompt_is_not_read(model: TextToImage) -> None:
    length = torch.tensor([3], dtype=torch.int32)
    text = torch.arange(1, TOKENS + 1)[None]
    other = torch.where(torch.arange(TOKENS) < 3, text, 7)
    assert torch.equal(model.condition(text, length), model.condition(other, length))
    assert not torch.equal(model.condition(text, length), model.condition(text, length + 1))


@torch.no_grad()
def test_an_empty_prompt_is_a_prompt(model: TextToImage) -> None:
    context = model.condition(torch.ones(1, TOKENS, dtype=torch.int64), torch.zeros(1, dtype=torch.int32))
    assert context.shape == (1, TOKENS, TINY.words)
    assert context.isfinite().all()


@torch.no_grad()
def test_rows_do_not_see_each_other(model: TextToImage) -> None:
    time = torch.tensor([0.1, 0.5, 0.9])
    context = torch.randn(3, TOKENS, TINY.words, generator=torch.Generator().manual_seed(2))
    together = model.denoise(latents(3), time, context)
    for row in range(3):
        alone = model.denoise(latents(3)[row : row + 1], time[row : row + 1], context[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-4)


def test_no_layer_is_a_product_of_the_whole_batch() -> None:
    """Convolutions are computed row by row, so numbers do not depend on the batch."""
    kinds = {type(each) for each in TextToImage(TINY).modules()}
    assert not kinds & {torch.nn.Linear, torch.nn.BatchNorm2d, torch.nn.BatchNorm1d}


def test_every_weight_learns(model: TextToImage) -> None:
    text = torch.arange(1, TOKENS + 1)[None]
    model(
        latents(1), torch.tensor([0.5]), text, torch.tensor([4], dtype=torch.int32)
    ).square().sum().backward()
    unused = {
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
    }
    assert not unused
