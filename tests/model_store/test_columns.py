"""CSV files by column: labels, missing values, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from model_store.columns import read_columns, read_rows
from model_store.labelled import WrongArrays


def saved(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_by_name(tmp_path: Path) -> None:
    columns = read_columns(
        saved(tmp_path, "\ufeffage, colour,label\n41,red,0\n NaN ,,1\n\n1e2,N/A,anomaly\n")
    )
    assert columns.numbers("age") == [41, None, 100]
    assert columns["colour"] == ["red", "", "N/A"]
    assert columns.words("colour") == ["red", None, "N/A"]
    assert columns.labels(None, ()) is not None
    np.testing.assert_array_equal(columns.labels(None, ()), [False, True, True])
    assert columns.labels(None, ["label"]) is None  # a feature of that name is no label


def test_rows_of_numbers(tmp_path: Path) -> None:
    rows = read_rows(saved(tmp_path, "a,b,odd\n1,,0\n3,4,1.0\n"), (), "odd")
    np.testing.assert_array_equal(rows.values, [[1, np.nan], [3, 4]])
    assert rows.features == ("a", "b")
    assert rows.anomalous.tolist() == [False, True]
    chosen = read_rows(saved(tmp_path, "a,b,odd\n1,,0\n3,4,2\n"), ("odd", "a"))
    assert chosen.values.tolist() == [[0, 1], [2, 3]]
    assert not chosen.anomalous.any()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "rows.csv cannot be read as a CSV file"),
        ("a,b\n", "rows.csv has no rows below its names"),
        ("a,a\n1,2\n", "rows.csv: a column is named twice"),
        ("a,b\n1,2\n3\n", "rows.csv, line 3: 1 fields in 2 columns"),
        ("a,b\n1,2\n3,x\n", "rows.csv, line 3: b is 'x', where a number belongs"),
        ("a,b\n1,inf\n", "rows.csv: row 0 is infinite"),
        ("a,label\n1,2\n", "column label has '2', where a label is 0 (normal) or 1 (anomaly)"),
        ("a,label\n1,\n", "column label has '', where a label is 0"),
    ],
)
def test_what_is_no_table_is_one_sentence(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(WrongArrays) as error:
        read_rows(saved(tmp_path, text))
    assert complaint in str(error.value)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WrongArrays, match=r"rows.csv has no column c, only a, b"):
        read_rows(saved(tmp_path, "a,b\n1,2\n"), ("a", "c"))
    with pytest.raises(WrongArrays, match=r"has no column odd"):
        read_rows(saved(tmp_path, "a,b\n1,2\n"), (), "odd")
