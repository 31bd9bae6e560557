from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model

from model_store.export.draft import Draft
from model_store.zoo import fashion_ae, textures_ae
from model_store.zoo.fashion_ae import Recipe
from model_store.zoo.textures_ae import DARKEST
from tests.model_store.zoo.drafted import run_drafted
from tests.model_store.zoo.neighbours import check_rows
from tests.model_store.zoo.recipes import published
from tests.model_store.zoo.tiny_fashion import Steps
from tests.model_store.zoo.tiny_textures import write_tiny_textures

BRIEF = Recipe(steps=3, batch=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_textures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path) -> fashion_ae.Autoencoder:
    return textures_ae.train(data, Steps(), BRIEF)


@pytest.fixture(scope="module")
def drafted(data: Path, model: fashion_ae.Autoencoder, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return textures_ae.draft(model, data, tmp_path_factory.mktemp("work"), Steps(), BRIEF)


def test_three_of_five_variants_teach_one_calibrates_one_is_measured_on(data: Path) -> None:
    """Ten textures of ten variants each, two of them too dark to be measured on; a door and a ring beside them."""
    learned, held, test = textures_ae.read_split(data)
    assert [len(each) for each in (learned, held, test)] == [60, 20, 16]
    assert learned.shape[1:] == (3, 32, 32)
    assert test.flatten(1).mean(1).min() > DARKEST
    every = torch.cat([learned, held, test])
    assert len(every.flatten(1).unique(dim=0)) == len(every)


def test_training_tells_every_step_and_is_the_same_again(data: Path, model: fashion_ae.Autoencoder) -> None:
    steps = Steps()
    again = textures_ae.train(data, steps, BRIEF).state_dict()
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_a_draft_says_how_well_defects_are_found(drafted: Draft) -> None:
    assert (drafted.name, drafted.provenance.recipe) == ("textures-ae", "textures_ae")
    for name in ("defects.pixel_auroc", "defects.aupro", "defects.auroc.peak", "reconstruction_ssim"):
        assert drafted.quality[name].baseline is not None
    assert drafted.scoring is not None
    assert drafted.scoring.default == "peak"
    assert set(drafted.scoring.calibrations) == set(fashion_ae.SCORES)
    assert drafted.scoring.latents in drafted.files


@pytest.mark.parametrize("name", ["reconstruct", "decode"])
def test_graphs_compute_what_they_declare(name: str, drafted: Draft) -> None:
    assert len(run_drafted(drafted.graphs[name])) == 2


def test_what_is_trained_can_be_published_and_its_rows_are_their_own(
    drafted: Draft, model: fashion_ae.Autoencoder, tmp_path: Path
) -> None:
    package = published(drafted, tmp_path)
    image = package.manifest.image
    assert image is not None
    assert (image.channels, image.height, image.width) == (3, 32, 32)
    check_rows(package, drafted)
    weights = drafted.graphs["decode"].weights
    assert weights is not None
    loaded = textures_ae.autoencoder().eval()
    load_model(loaded, weights)
    shown = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(shown), model(shown))
