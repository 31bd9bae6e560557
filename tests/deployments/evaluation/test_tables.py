"""Evaluations of models of table rows, from files of rows to figures."""

from pathlib import Path

import numpy as np
import pytest

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.evaluate import Plan, evaluate
from deployments.evaluation.record import Evaluation
from deployments.evaluation.shown import Found
from model_store.store import Store
from tests import records

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    records.table(folder)
    records.table(folder, name="told", contribution=True)
    records.table(folder, name="whole", known=False)
    number = {"kind": "number", "minimum": 0, "maximum": 0.3, "deviation": 0.1}
    names = ("b", "a", "c", "d", "e")
    records.table(
        folder, name="numbers", known=False, table={"features": [{**number, "name": each} for each in names]}
    )
    return Store(folder)


def run(store: Store, name: str, plan: Plan) -> tuple[Evaluation, Found]:
    record, found = evaluate(store.open(name), plan, lambda *_: None)
    assert Evaluation.model_validate_json(record.model_dump_json()) == record
    return record, found


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """40 rows; of each fourth the income is far off. Some values are missing."""
    random, lines = np.random.default_rng(0), ["id,income,age,colour,anomaly"]
    for place in range(40):
        income = "" if place == 6 else f"{random.normal(950, 10) + 900 * (place % 4 == 0):.1f}"
        colour = "NA" if place == 5 else COLOURS[place % 8 == 7]
        lines.append(f"{place},{income},{random.normal(48, 1):.2f},{colour},{int(place % 4 == 0)}")
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_rows_with_labels_and_missing_values(store: Store, rows: Path) -> None:
    record, found = run(store, "tiny-table", Plan(rows, device="cpu"))
    figures = record.figures
    assert next(iter(figures)) == "auroc.l2"
    assert figures["auroc.l2"].value == figures["f1.l2"].value == 1
    assert figures["false_alarms.l2"].value == 0
    assert record.data.groups == {"anomaly": 10, "good": 30}
    assert record.settings["columns left out"] == "id"
    assert [plot.title for plot in record.plots] == ["ROC", "Precision and recall", "Scores"]
    (sheet,) = found.sheets
    assert sheet.head == ("feature", "anomalies", "normal rows")
    assert sheet.rows[0][0] == "income"
    assert {"latency_p50", "throughput_1", "throughput_32"} <= figures.keys()


def test_what_is_hidden_is_filled_in_beside_the_mean(store: Store, rows: Path) -> None:
    figures = run(store, "tiny-table", Plan(rows, device="cpu"))[0].figures
    # The model redraws all rows alike, as age 48 where all is known; each hidden feature takes a year of it.
    assert figures["reconstruction_error"].value == pytest.approx(1, abs=0.2)
    assert 1 < figures["imputation_error.30"].value < 2
    assert "the mean has" in figures["imputation_error.30"].about
    assert 0 < figures["imputation_wrong.50"].value < 0.5  # every colour is filled in as red
    again = run(store, "tiny-table", Plan(rows, device="cpu"))[0].figures
    assert again["imputation_error.30"] == figures["imputation_error.30"]


def test_without_labels_there_are_alarms(store: Store, rows: Path) -> None:
    rows.write_text("\n".join(line.rpartition(",")[0] for line in rows.read_text().splitlines()))
    record, found = run(store, "told", Plan(rows, device="cpu"))
    assert record.figures["alarms.l2"].value == 0.25
    assert found.sheets[0].rows[0] == ("income", "97.5%")  # the model says so, but of the row that lacks it


def test_arrays_are_in_the_features_own_units(store: Store, tmp_path: Path) -> None:
    x = np.full((8, 5), 0.3)  # in float32 this is more than the features' maximum
    x[::2, 0] = 0.0
    np.savez(tmp_path / "x.npz", X=x, y=np.arange(8) % 2)
    by_place = run(store, "numbers", Plan(tmp_path / "x.npz", device="cpu"))[0].figures["auroc.l2"]
    np.savez(tmp_path / "x.npz", X=x[:, ::-1], y=np.arange(8) % 2, features=np.array(list("edcab")))
    by_name = run(store, "numbers", Plan(tmp_path / "x.npz", device="cpu"))[0].figures["auroc.l2"]
    assert by_place.value == by_name.value == 1


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("tiny-table", "age,income\n1,2", "has no column colour, only age, income"),
        ("tiny-table", "age,income,colour\n1,x,red", "line 2: income is 'x', where a number belongs"),
        ("tiny-table", "age,income,colour\n40,1,red\n130,1,red", r"at most 120. \(item 1.features.age\)"),
        ("tiny-table", "age,income,colour\n40,1,mauve", r"red, green, blue. \(item 0.features.colour\)"),
        ("whole", "age,income,colour\n40,,red", r"no missing values. \(item 0.features.income\)"),
        ("tiny-table", "age,income,colour\n,,", r"Every feature of the row is missing"),
    ],
)
def test_what_cannot_be_read_names_its_place(
    store: Store, name: str, text: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=complaint):
        run(store, name, Plan(path, device="cpu"))


def test_arrays_that_do_not_fit(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for name, arrays, complaint in (
        ("tiny-table", {"X": np.ones((2, 3))}, "holds numbers, and colour is a word"),
        ("numbers", {"X": np.ones((2, 3))}, r"shape \[2, 3\], where \[rows, 5\] belong"),
        ("numbers", {"X": np.ones((2, 5)), "features": np.array(list("abcdf"))}, "names other features"),
        ("numbers", {"X": np.ones((2, 5, 1))}, r"where numbers \[rows, columns\] belong"),
        ("numbers", {"X": np.full((2, 5), np.inf)}, "row 0 is infinite"),
    ):
        np.savez(path, allow_pickle=False, **arrays)
        with pytest.raises(EvaluationError, match=complaint):
            run(store, name, Plan(path, device="cpu"))
    with pytest.raises(EvaluationError, match=r"neither a .csv nor an .npz file"):
        run(store, "numbers", Plan(tmp_path, device="cpu"))
    with pytest.raises(EvaluationError, match=r"--label names a column of .csv files"):
        run(store, "numbers", Plan(path, device="cpu", label="y"))
