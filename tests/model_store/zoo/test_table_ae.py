import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.export.draft import Draft
from model_store.zoo import adbench, table_ae
from model_store.zoo.table_net import trust
from tests.model_store.zoo.recipes import published
from tests.model_store.zoo.tiny_fashion import Steps
from tests.model_store.zoo.tiny_rows import FEATURES, check_alone, rows, write_tables

BRIEF = table_ae.Recipe(steps=3, batch=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path) -> table_ae.Trained:
    return table_ae.train(data, Steps(), BRIEF)


@pytest.fixture(scope="module")
def told() -> Steps:
    return Steps()


@pytest.fixture(scope="module")
def drafted(
    data: Path, trained: table_ae.Trained, told: Steps, tmp_path_factory: pytest.TempPathFactory
) -> Draft:
    return table_ae.draft(trained, data, tmp_path_factory.mktemp("work"), told, BRIEF)


def test_training_tells_every_step_and_comes_ready(data: Path, trained: table_ae.Trained) -> None:
    steps = Steps()
    again = table_ae.train(data, steps, BRIEF)
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
    assert not again.model.training
    assert all(
        torch.equal(value, again.model.state_dict()[name])
        for name, value in trained.model.state_dict().items()
    )


def test_few_rows_are_learned_in_few_steps() -> None:
    steps = Steps()
    table_ae.fit(rows(5), steps, table_ae.Recipe(steps=100, fewest=2, batch=4))
    assert steps.seen[-1] == (12, 12)


def test_the_normal_rows_are_kept(trained: table_ae.Trained) -> None:
    assert trained.model.kept.shape == (30, FEATURES)
    assert trained.model.trust.item() == pytest.approx(trust(30, FEATURES), rel=1e-3)


def test_it_learns_what_values_say_of_each_other() -> None:
    normal, held = rows(200), rows(50, 1)
    trained = table_ae.fit(normal, Steps(), table_ae.Recipe(steps=150, batch=64))
    apart = np.random.default_rng(0).permuted(held, axis=0)
    scores, odd = (table_ae.computed(trained, each) for each in (held, apart))
    for name in table_ae.SCORES:
        assert np.mean(scores[name]) < np.mean(odd[name])
    away = adbench.hidden(held, 0.1)
    columns = trained.columns(held).numpy()
    assert adbench.error(table_ae.filled(trained, held, ~away), columns, away) < 0.8 * adbench.error(
        np.zeros_like(columns), columns, away
    )


def test_every_set_is_measured(drafted: Draft, told: Steps) -> None:
    assert told.seen == [(step, 6) for step in range(1, 7)]
    assert {name for name in drafted.quality if name.startswith("imputation")} == {
        "imputation_error.10",
        "imputation_error.30",
        "imputation_error.50",
    }
    for name in table_ae.SCORES:
        assert 0 <= drafted.quality[f"adbench_auroc.{name}"].value <= 1
    found = drafted.quality["adbench_auroc.density"]
    assert found.baseline is not None
    assert found.baseline > 0.9  # rows that lost what holds them together are far from all others
    assert found.note is not None
    assert re.fullmatch(
        r"a model of .*; PCA (0\.\d{4}|1\.0000), Mahalanobis distance (0\.9\d{3}|1\.0000)", found.note
    )


def test_figures_are_means_over_sets(data: Path, trained: table_ae.Trained) -> None:
    found = adbench.read(adbench.files(data)[1])
    own = table_ae.imputed(trained, found, 0.3)
    assert own["mean"] == pytest.approx(1, abs=0.3)
    assert own["neighbours"] < own["mean"]
    assert math.isfinite(own["model"])


def test_a_draft_is_calibrated_on_rows_that_were_held_out(
    drafted: Draft, trained: table_ae.Trained, data: Path
) -> None:
    assert drafted.scoring is not None
    assert drafted.scoring.default == "density"
    held = adbench.read(data / adbench.DATA_FOLDER / f"{table_ae.SHIPPED}.npz").held
    stored = np.load(io.BytesIO(drafted.files["calibration/density.npy"]), allow_pickle=False)
    assert np.array_equal(stored, np.sort(table_ae.computed(trained, held)["density"]))


def test_features_have_names_ranges_and_errors(drafted: Draft, trained: table_ae.Trained) -> None:
    assert drafted.table is not None
    assert [each.name for each in drafted.table.features] == [
        f"{axis}{point}" for point in range(1, 9) for axis in "xy"
    ]
    for place, feature in enumerate(drafted.table.features):
        assert feature.kind == "number"
        assert feature.minimum is not None
        assert feature.maximum is not None
        assert feature.minimum < feature.mean < feature.maximum
        assert feature.deviation == pytest.approx(trained.deviation[place])
        assert 0 < feature.error < 5 * feature.deviation


def test_it_is_published_and_rows_are_independent(
    drafted: Draft, trained: table_ae.Trained, tmp_path: Path
) -> None:
    package = published(drafted, tmp_path)
    assert "impute" in package.manifest.capabilities
    chance = np.random.default_rng(0)
    columns = chance.standard_normal((17, FEATURES)).astype(np.float32)
    known = (chance.random((17, FEATURES)) < 0.8).astype(np.float32)
    check_alone(package, "reconstruct", {"input": columns * known, "known": known})
    latent = chance.standard_normal((17, trained.model.config.latent)).astype(np.float32)
    check_alone(package, "decode", {"latent": latent})
