import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_store.zoo.table_net import FAR, NEAREST, Autoencoder, Beliefs, Config, squash, stretch, trust


def rows(count: int, features: int = 4) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(Config(features=4, rows=30, width=16, latent=4, blocks=1)).eval()
    model.kept.data = squash(rows(30))
    return model


@given(st.floats(-30, 30))
def test_what_is_squashed_is_stretched_again(value: float) -> None:
    column = torch.tensor([value])
    assert abs(squash(column)) < FAR
    assert stretch(squash(column)).item() == pytest.approx(value, rel=1e-3, abs=1e-5)


def test_no_column_is_too_far_to_be_squashed() -> None:
    assert squash(torch.tensor([1e18])).item() == pytest.approx(FAR)
    assert math.isfinite(stretch(torch.tensor([FAR])).item())


def test_beliefs_have_mean_variance_and_surprise() -> None:
    one = Beliefs(*(torch.tensor([each]) for each in ([0.5, 0.5, 0, 0], [-1.0, 3, 0, 0], [1.0, 1, 1, 1])))
    assert one.mean().item() == 1
    assert one.variance().item() == 5
    density = 0.95 * (math.exp(-0.5) + math.exp(-4.5)) / 2 / math.sqrt(2 * math.pi) + 0.05 / (2 * FAR)
    assert one.surprise(torch.zeros(1)).item() == pytest.approx(-math.log(density), rel=1e-5)
    assert one.surprise(torch.full((1,), 1e9)).item() == pytest.approx(-math.log(0.05 / (2 * FAR)), rel=1e-5)


def test_a_net_is_trusted_for_its_rows() -> None:
    assert trust(400, 4) == 0.5
    assert trust(400, 4) < trust(4_000, 4) < 1


@torch.no_grad()
def test_what_is_not_known_is_nothing_to_go_by(model: Autoencoder) -> None:
    known = torch.tensor([[1.0, 1, 0, 1]]).expand(3, -1)
    given_rows = rows(3)
    other = given_rows + 7 * (1 - known)
    for first, second in zip(
        model.reconstruct(given_rows, known), model.reconstruct(other, known), strict=True
    ):
        assert torch.equal(first, second)
    assert (model.reconstruct(given_rows, known)[5][:, 2] == 0).all()


@torch.no_grad()
def test_each_value_is_judged_by_the_others(model: Autoencoder) -> None:
    given_rows, known = rows(3), torch.ones(3, 4)
    squashed = squash(given_rows)
    _, _, density, surprise, distance, contribution = model.reconstruct(given_rows, known)
    nats = []
    for place in range(4):
        told = known.clone()
        told[:, place] = 0
        beliefs = model(squashed, told)
        own = Beliefs(*(each[:, place] for each in (beliefs.weight, beliefs.centre, beliefs.deviation)))
        nats.append(own.surprise(squashed[:, place]))
        expected = (squashed[:, place] - own.mean()).square() / own.variance()
        torch.testing.assert_close(contribution[:, place], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(surprise, torch.stack(nats, 1).mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(density, surprise + 2 * distance)  # trusted wholly, until it is trained


@torch.no_grad()
def test_distances_are_those_of_the_nearest_rows(model: Autoencoder) -> None:
    given_rows, known = rows(5), torch.tensor([[1.0, 0, 1, 1]]).expand(5, -1)
    apart = ((squash(given_rows)[:, None] - model.kept).square() * known[:, None]).sum(2)
    nearest = apart.sort(1).values[:, :NEAREST] / 3
    expected = (nearest + 0.02**2).log().mean(1) / 2
    found = model.reconstruct(given_rows, known)[4]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_are_redrawn_by_their_latents(model: Autoencoder) -> None:
    redrawn, latent, *_ = model.reconstruct(rows(3), torch.ones(3, 4))
    assert latent.shape == (3, 4)
    assert torch.equal(model.decode(latent), redrawn)


@torch.no_grad()
def test_what_is_not_known_is_also_what_the_nearest_rows_have(model: Autoencoder) -> None:
    squashed, known = model.kept[:2].clone(), torch.tensor([[1.0, 1, 1, 0]]).expand(2, -1)
    apart = ((squashed[:, None] - model.kept)[:, :, :3]).square().sum(2)
    theirs = model.kept[apart.topk(NEAREST, dim=1, largest=False).indices][:, :, 3].mean(1)
    found, latent, _ = model.fill(squashed * known, known)
    expected = model.believe(latent).mean()
    torch.testing.assert_close(found[:, :3], stretch(expected)[:, :3])
    torch.testing.assert_close(found[:, 3], stretch((expected[:, 3] + theirs) / 2))
