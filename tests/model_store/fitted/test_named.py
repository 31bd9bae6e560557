"""Detectors of named features: units, ranges, missing values, and the packages that are served by name."""

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Reconstruct, RowItem, Score
from deployments.metrics import Metrics
from deployments.model import open_model
from deployments.studio import Studio
from model_store.export.errors import DraftError
from model_store.export.publish import publish
from model_store.fitted.fit import draft, fit, places
from model_store.fitted.named import described, fit_named, read_named
from model_store.fitted.recipe import Kind, Recipe
from model_store.labelled import Rows
from model_store.ranking import auroc
from model_store.session import Device
from model_store.store import Store
from model_store.tabling import Number

NAMES = ("age", "income", "debt", "flat")


def rows(count: int = 300, missing: float = 0.0) -> Rows:
    """Debt follows income; the last ten rows are the other way round. Nothing varies in the last column."""
    random = np.random.default_rng(0)
    age, income = random.normal(40, 10, count), random.normal(1e6, 1e3, count)
    odd = np.arange(count) >= count - 10
    debt = np.where(odd, -1, 1) * (income - 1e6) / 1e6 + random.normal(0, 1e-4, count)
    values = np.stack([age, income, debt, np.full(count, 7.0)], 1)
    values[(random.random(values.shape) < missing) & ~odd[:, None]] = np.nan
    return Rows(values, odd, NAMES)


def test_features_have_units_and_ranges() -> None:
    values = np.array([[1.0, 5], [3, 5], [np.nan, 5]])
    first, second = described(values, ("a", "b"), standardize=True).features
    assert first == Number(
        kind="number", name="a", mean=2, deviation=1, minimum=1, maximum=3, outside="accept"
    )
    assert isinstance(second, Number)
    assert second.deviation == 1  # it never varies
    (plain, _) = described(values * 7, ("a", "b"), standardize=False).features
    assert isinstance(plain, Number)
    assert plain.deviation == 1
    with pytest.raises(DraftError, match="no normal row that is fitted to has a value of a"):
        described(values[2:], ("a", "b"), standardize=True)


@pytest.mark.parametrize("kind", ["pca", "knn", "mahalanobis"])
def test_what_is_odd_scores_highest(kind: Kind) -> None:
    fitted, held = fit_named(rows(missing=0.02), Recipe(kind), 0.3, "x")
    assert np.isnan(held.items).any()
    default = next(iter(fitted.scores(held.items).values()))
    assert auroc(default[~held.anomalous], default[held.anomalous]) > 0.75


def test_complete_rows_score_as_without_names() -> None:
    data = rows()
    fitted, held = fit_named(data, Recipe("mahalanobis"), 0.3, "x")
    normal, kept = places(data.anomalous, 0.3)
    plain = fit(data.values[normal].astype(np.float32), Recipe("mahalanobis"))
    np.testing.assert_allclose(
        fitted.scores(held.items)["distance"],
        plain.scores(data.values[kept].astype(np.float32))["distance"],
        rtol=1e-2,
    )


def test_missing_values_are_filled_in_by_components() -> None:
    fitted, held = fit_named(rows(missing=0.1), Recipe("pca", 2), 0.3, "x")
    assert np.isnan(held.items).any()
    row = held.items[~np.isnan(held.items).any(1) & ~held.anomalous][:1].copy()
    row[0, 1], debt = 2.0, row[0, 2].copy()
    row[0, 2] = np.nan
    filled = fitted.redrawn(row)[0, 2]
    assert filled > 1  # as income is
    assert abs(filled - debt) > 0
    assert fitted.table is not None
    errors = {each.name: each.error for each in fitted.table.features if isinstance(each, Number)}
    deviations = {each.name: each.deviation for each in fitted.table.features if isinstance(each, Number)}
    assert 0 < errors["debt"] < deviations["debt"]
    assert errors["flat"] < 1e-6


@pytest.mark.parametrize("kind", ["pca", "knn"])
async def test_a_package_is_served_by_name(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    fitted, held = fit_named(rows(missing=0.1), Recipe(kind, 2), 0.3, "rows.csv")
    publish(draft(fitted, held, "people", tmp_path / "work"), str(tmp_path / "store"))
    package = Store(str(tmp_path / "store")).open("people")
    assert ("impute" in package.manifest.capabilities) == (kind == "pca")
    metrics = Metrics(CollectorRegistry())
    studio = Studio([open_model(package, HostConfig(), Device("cpu"), metrics)], metrics)
    try:
        usual = {"age": 41, "income": 1_001_000, "debt": 0.001, "flat": 7}
        odd, lacking = {**usual, "debt": -0.003}, {**usual, "debt": None}
        items = tuple(RowItem(each) for each in (usual, odd, lacking))
        first, second, third = (await studio.call(Score("people", items, contributions=True))).outputs
        assert second.is_anomaly
        assert not first.is_anomaly
        assert (second.score or 0) > max(first.score or 0, third.score or 0)
        assert second.contributions is not None
        assert second.contributions["debt"] + second.contributions["income"] > 0.8  # they belong together
        assert third.contributions is not None
        assert third.contributions["debt"] == 0
        if kind == "pca":
            (output,) = (await studio.call(Reconstruct("people", items[2:]))).outputs
            assert output.imputed is not None
            value, spread = output.imputed["debt"].value, output.imputed["debt"].spread
            assert value == pytest.approx(0.001, abs=5e-4)
            assert spread is not None
            assert spread > 0
    finally:
        studio.close()


def test_names_come_from_the_file_or_the_command(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b,label\n1,2,0\n3,,1\n")
    found = read_named(tmp_path / "x.csv", (), None)
    assert found is not None
    assert found.features == ("a", "b")
    chosen = read_named(tmp_path / "x.csv", ("b",), None)
    assert chosen is not None
    assert chosen.values.shape == (2, 1)
    path = tmp_path / "x.npz"
    np.savez(path, X=np.array([[1, 2], [3, np.nan]]), features=np.array(["a", "b"]))
    own, named = read_named(path, (), None), read_named(path, ("c", "d"), None)
    assert own is not None
    assert named is not None
    assert (own.features, named.features) == (("a", "b"), ("c", "d"))
    np.savez(path, X=np.zeros((2, 2)))
    assert read_named(path, (), None) is None
    for names, label, complaint in (
        (("a",), None, "1 features are named; x.npz has 2 columns"),
        ((), "y", "--label names a column of a .csv file"),
    ):
        with pytest.raises(DraftError, match=complaint):
            read_named(path, names, label)
    with pytest.raises(DraftError, match="a feature is named twice"):
        fit_named(Rows(np.zeros((20, 2)), np.zeros(20, bool), ("a", "a")), Recipe("pca"), 0.5, "x")
