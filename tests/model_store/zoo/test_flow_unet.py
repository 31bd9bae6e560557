import pytest
import torch

from model_store.zoo.flow_unet import Block, Config, Denoiser, Grow
from tests.model_store.zoo.weights import awake

TINY = Config(channels=1, classes=10, widths=(8, 8, 16), outer=1, inner=1, condition=8, degree=4)


@pytest.fixture(scope="module")
def model() -> Denoiser:
    torch.manual_seed(0)
    return awake(Denoiser(TINY))


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_latent_time_and_class_matter(model: Denoiser) -> None:
    first, second = latents(2)[:1], latents(2)[1:]
    time, label = torch.tensor([0.3]), torch.tensor([6])
    plain = model(first, time, label)
    assert plain.shape == (1, 1, 28, 28)
    assert torch.equal(plain, model(first, time, label))
    for other in (
        model(second, time, label),
        model(first, time + 0.1, label),
        model(first, time, label + 2),
        model(first, time, torch.tensor([TINY.classes])),
    ):
        assert not torch.allclose(plain, other, atol=1e-4)


@torch.no_grad()
def test_a_rows_velocity_is_its_own(model: Denoiser) -> None:
    together = model(latents(3), torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1, 9, 10]))
    alone = model(latents(3)[1:2], torch.tensor([0.5]), torch.tensor([9]))
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_no_layer_mixes_rows_or_is_a_product_of_whole_maps(model: Denoiser) -> None:
    """Convolutions are computed image by image, so numbers do not depend on the batch."""
    assert not any(isinstance(each, torch.nn.Linear | torch.nn.BatchNorm2d) for each in model.modules())


@torch.no_grad()
def test_a_new_block_adds_nothing() -> None:
    x, condition = torch.randn(2, 16, 5, 5), torch.randn(2, 8, 1, 1)
    assert torch.equal(Block(16, 8)(x, condition), x)


@torch.no_grad()
def test_growing_makes_four_places_of_each() -> None:
    grow = Grow(3, 2)
    x = torch.randn(1, 3, 4, 4)
    grown = grow(x)
    assert grown.shape == (1, 2, 8, 8)
    other = x.clone()
    other[0, :, 1, 2] += 1
    changed = (grow(other) != grown).any(dim=1)[0].nonzero().tolist()
    assert changed == [[2, 4], [2, 5], [3, 4], [3, 5]]


@torch.no_grad()
def test_channels_and_sides_are_free() -> None:
    torch.manual_seed(0)
    coloured = Denoiser(
        Config(channels=4, classes=0, widths=(8, 8, 8), outer=1, inner=1, condition=8, degree=2)
    )
    latent = torch.randn(2, 4, 32, 16)
    assert coloured(latent, torch.rand(2), torch.zeros(2, dtype=torch.int64)).shape == latent.shape


def test_a_new_net_moves_nothing_and_learns_everywhere() -> None:
    torch.manual_seed(0)
    model = Denoiser(TINY)
    given = latents(2), torch.rand(2), torch.tensor([0, 3])
    assert not model(*given).any()
    awake(model)(*given).square().sum().backward()
    assert all(each.grad is not None and each.grad.any() for each in model.parameters())
