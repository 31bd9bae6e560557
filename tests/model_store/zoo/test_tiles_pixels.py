import torch

from model_store.zoo.tiles_pixels import Pixels


def image() -> torch.Tensor:
    drawn = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    drawn[:, 3] = (drawn[:, 3] > 0.5).float()
    drawn[:, :3] *= drawn[:, 3:]
    return drawn


def test_a_picture_comes_back() -> None:
    assert torch.allclose(Pixels().decode(Pixels().encode(image())), image(), atol=1e-6)


def test_latents_are_centred_and_nothing_has_no_colour() -> None:
    latent = Pixels().encode(torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 4, 1, 1))
    assert latent.flatten().tolist() == [-1.0, -1.0, -1.0, -1.0]


def test_what_a_net_leaves_of_the_range_is_cut() -> None:
    wild = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 3
    found = Pixels().decode(wild)
    assert 0 <= found.min() <= found.max() <= 1
    premultiplied = Pixels().premultiplied(wild)
    assert (premultiplied[:, :3] <= premultiplied[:, 3:]).all()


def test_almost_nothing_is_nothing_and_almost_all_is_all() -> None:
    alpha = torch.tensor([0.04, 0.5, 0.96])
    latent = torch.zeros(1, 4, 1, 3)
    latent[0, 3, 0] = alpha * 2 - 1
    found = Pixels().decode(latent)[0, 3, 0]
    assert torch.allclose(found, torch.tensor([0.0, 0.5, 1.0]))
