"""Fitted detectors: what they compute beside scikit-learn, what is refused, and the packages they become."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from model_store.export.cases import random_cases
from model_store.export.errors import DraftError
from model_store.export.neighbours import dependence
from model_store.export.publish import publish
from model_store.fitted.fit import check_weight, draft, fit, split
from model_store.fitted.modules import Pca
from model_store.fitted.recipe import MOST_BYTES, Kind, Recipe
from model_store.labelled import Floats, Labelled
from model_store.session import Device, open_graph
from model_store.store import Store

FEATURES = 6


def rows(count: int, seed: int = 0) -> Floats:
    """Correlated rows in units that differ by a million, one of them constant."""
    generator = np.random.default_rng(seed)
    drawn = generator.standard_normal((count, FEATURES)) @ np.random.default_rng(7).standard_normal(
        (FEATURES, FEATURES)
    )
    drawn[:, 1] *= 1e3
    drawn[:, 2] = drawn[:, 2] * 1e-3 + 5
    drawn[:, 5] = 3.0
    return drawn.astype(np.float32)


def pictures(count: int, seed: int = 0) -> Floats:
    made: Floats = np.random.default_rng(seed).uniform(0, 1, (count, 1, 4, 4)).astype(np.float32)
    return made


def held(normal: Floats, anomalies: Floats | None = None) -> Labelled:
    if anomalies is None:
        return Labelled(normal, np.zeros(len(normal), np.bool_), "data.npz")
    truth = np.arange(len(normal) + len(anomalies)) >= len(normal)
    return Labelled(np.concatenate([normal, anomalies]), truth, "data.npz")


# -- exactness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, 4])
def test_components_are_those_of_scikit_learn(count: int) -> None:
    known, new = rows(count), rows(40, seed=1)
    scaler = StandardScaler().fit(known.astype(np.float64))
    theirs = PCA(3).fit(scaler.transform(known.astype(np.float64)))

    found = fit(known, Recipe("pca", count=3)).scores(new)

    measured = scaler.transform(new.astype(np.float64))
    latent = theirs.transform(measured)
    errors = measured - theirs.inverse_transform(latent)
    np.testing.assert_allclose(found["l1"], np.abs(errors).mean(1), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["l2"], (errors**2).mean(1), rtol=1e-3, atol=1e-5)
    if count > FEATURES:  # with fewer rows theirs leaves out axes that nothing is known of
        centred = measured - theirs.mean_
        distance = ((centred @ theirs.get_precision()) * centred).sum(1) * count / (count - 1)
        np.testing.assert_allclose(found["likelihood"], distance / FEATURES, rtol=1e-3)


def test_distances_to_the_mean_are_those_of_scikit_learn() -> None:
    known, new = rows(300)[:, :5], rows(40, seed=1)[:, :5]
    scaler = StandardScaler().fit(known.astype(np.float64))
    theirs = LedoitWolf(assume_centered=True).fit(scaler.transform(known.astype(np.float64)))

    found = fit(known, Recipe("mahalanobis")).scores(new)["distance"]

    expected = np.sqrt(theirs.mahalanobis(scaler.transform(new.astype(np.float64))))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("nearest", [1, 5, 30])
def test_nearest_rows_are_those_of_scikit_learn(nearest: int) -> None:
    known, new = rows(30), rows(40, seed=1)
    scaler = StandardScaler().fit(known.astype(np.float64))
    theirs = NearestNeighbors(n_neighbors=nearest).fit(scaler.transform(known.astype(np.float64)))

    found = fit(known, Recipe("knn", count=nearest)).scores(new)["distance"]

    distances, _ = theirs.kneighbors(scaler.transform(new.astype(np.float64)))
    np.testing.assert_allclose(found, distances.mean(1), rtol=1e-4)


def test_a_row_that_is_known_has_no_distance_however_large_its_numbers() -> None:
    known = (rows(50) + 1e4).astype(np.float32)

    found = fit(known, Recipe("knn", count=1, standardize=False)).scores(known)["distance"]

    assert found.max() < 1e-3


def test_pictures_are_not_standardized_unless_it_is_said() -> None:
    known = pictures(60)
    flat = known.reshape(60, -1).astype(np.float64)
    theirs = PCA(4).fit(flat)

    found = fit(known, Recipe("pca", count=4)).scores(known)["l2"]

    expected = ((flat - theirs.inverse_transform(theirs.transform(flat))) ** 2).mean(1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert not np.allclose(fit(known, Recipe("pca", 4, standardize=True)).scores(known)["l2"], found)


def test_components_are_as_many_as_the_variance_asks_for() -> None:
    wide = rows(300)
    assert fit(wide, Recipe("pca")).arrays["axes"].shape[1] < FEATURES
    # One direction is all there is.
    line = np.linspace(0, 1, 50)[:, None] * np.arange(1, 5)
    assert fit(line.astype(np.float32), Recipe("pca")).arrays["axes"].shape[1] == 1


@pytest.mark.parametrize(
    ("recipe", "power"), [(Recipe("pca", 3), 1), (Recipe("knn", 1), 2), (Recipe("mahalanobis"), 2)]
)
def test_contributions_of_features_make_up_the_score(recipe: Recipe, power: int) -> None:
    fitted, new = fit(rows(300), recipe), rows(5, seed=1)
    module = fitted.module()
    share = (module.reconstruct if isinstance(module, Pca) else module)(torch.from_numpy(new))[-1].numpy()

    assert share.shape == (5, FEATURES)
    assert share.min() >= 0
    whole = share.mean(1) if recipe.kind == "pca" else share.sum(1)
    score = next(iter(fitted.scores(new).values()))
    np.testing.assert_allclose(whole, score**power, rtol=1e-4, atol=1e-6)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normal", "recipe", "complaint"),
    [
        (rows(1), Recipe("pca"), "at least two normal items"),
        (np.ones((9, 3), np.float32), Recipe("knn"), "all normal items are the same"),
        (rows(20), Recipe("pca", count=6), "between 1 and 5 can be taken"),
        (rows(3), Recipe("knn", count=4), "4 neighbours of 3 items"),
        (np.zeros((2, 9000), np.float32), Recipe("mahalanobis"), "9000 numbers"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(normal: Floats, recipe: Recipe, complaint: str) -> None:
    with pytest.raises(DraftError, match=complaint):
        fit(normal, recipe)


def test_neighbours_are_looked_for_in_a_bounded_memory() -> None:
    check_weight(MOST_BYTES // 4000, 4000)
    with pytest.raises(DraftError, match=f"100000 items weigh 381 MiB.*--examples {MOST_BYTES // 4000} "):
        check_weight(100_000, 4000)
    assert len(fit(rows(50), Recipe("knn", examples=20)).arrays["kept"]) == 20


def test_a_calibration_takes_enough_items(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match=r"10 normal items at least; data\.npz leaves 9"):
        draft(fit(rows(20), Recipe("knn")), held(rows(9)), "x", tmp_path)


def test_a_split_keeps_anomalies_out_of_what_is_fitted() -> None:
    data = held(rows(100), rows(7, seed=2) + 9)

    normal, rest = split(data, 0.2)

    assert (len(normal), len(rest.normal), int(rest.anomalous.sum())) == (80, 20, 7)
    assert {row.tobytes() for row in np.concatenate([normal, rest.items])} == {
        row.tobytes() for row in data.items
    }


# -- packages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pca", "knn", "mahalanobis"])
def test_a_package_is_calibrated_measured_and_independent_of_neighbours(kind: Kind, tmp_path: Path) -> None:
    anomalies = (rows(30, seed=3) * np.array([1, 1, 1, -3, 2, 1])).astype(np.float32)
    data = held(rows(50, seed=1), anomalies)
    fitted = fit(rows(300), Recipe(kind))
    made = draft(fitted, data, "tiny", tmp_path)

    manifest = publish(made, str(tmp_path / "store"))

    assert (manifest.family, manifest.scoring is not None) == ("linear", True)
    assert all(0.5 < each.value <= 1 for name, each in manifest.quality.items() if "auroc" in name)
    assert "50 normal items and 30 anomalies" in next(
        each.data for name, each in manifest.quality.items() if "auroc" in name
    )
    package = Store(str(tmp_path / "store")).open("tiny")
    for name, graph in made.graphs.items():
        session = open_graph(package, name, device=Device("cpu"))
        outputs = [each.name for each in graph.outputs]
        [case, *_] = random_cases(replace(graph, sizes={"batch": (17, 1)}))
        for count in range(2, 18):
            assert dependence(session, {key: each[:count] for key, each in case.items()}, outputs) == 0
