"""Files of items, and the calibrations they make."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from model_store.export.calibration import (
    Labelled,
    auroc,
    calibrate,
    measured,
    of_normal,
    read_items,
    scores_of,
)
from model_store.export.draft import tensor
from model_store.export.errors import DraftError

with io.BytesIO() as _file:
    np.save(_file, np.ones((20, 3)))
    ARRAY = _file.getvalue()


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


# -- files ----------------------------------------------------------------------------------------------------------


def test_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = np.arange(12.0).reshape(4, 3)

    data = read_items(saved(tmp_path, X=rows, y=np.array([[0], [1], [0], [1]])))

    assert data.items.dtype == np.float32
    assert np.array_equal(data.items, rows)
    assert data.anomalous.tolist() == [False, True, False, True]
    assert np.array_equal(data.normal, rows[::2])
    assert data.file == "data.npz"


def test_without_labels_all_are_normal(tmp_path: Path) -> None:
    assert not read_items(saved(tmp_path, X=np.ones((4, 3)))).anomalous.any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 8, 9), (2, 1, 8, 9)),
        ((2, 8, 9, 3), (2, 3, 8, 9)),
        ((2, 3, 8, 9), (2, 3, 8, 9)),
        ((2, 1, 8, 4), (2, 1, 8, 4)),
    ],
)
def test_bytes_are_pictures(shape: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path) -> None:
    data = read_items(saved(tmp_path, X=np.full(shape, 51, np.uint8)))
    assert data.items.shape == expected
    assert np.all(data.items == np.float32(0.2))


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"Y": np.ones(3)}, "has no array X, only Y"),
        ({"X": np.ones(3)}, r"X is float64\[3\]"),
        ({"X": np.array([["a"]])}, r"X is <U1\[1, 1\]"),
        ({"X": np.ones((0, 3))}, r"X is float64\[0, 3\]"),
        ({"X": np.array([[1.0], [np.nan], [1e39]])}, r"X\[1\] is not finite in float32 \(2 such"),
        ({"X": np.ones((3, 2)), "y": np.ones(2)}, "y has 2 labels for 3 items"),
        ({"X": np.ones((3, 2)), "y": np.array([0, 1, 2])}, "a label in y is 0"),
        ({"X": np.array([[None]])}, "cannot be read"),
    ],
)
def test_files_that_say_nothing_are_refused(
    arrays: Mapping[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(DraftError, match=complaint):
        read_items(saved(tmp_path, **arrays))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"\x93NUMPY", ARRAY])
def test_what_is_no_archive_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DraftError, match=r"data\.npz"):
        read_items(tmp_path / "data.npz")


# -- scores ---------------------------------------------------------------------------------------------------------


class Sums:
    """A graph that sums a row, and its noise."""

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        assert outputs == ["s"]
        return [feeds["x"].sum(1) + feeds["z"].sum(1)]


def test_items_are_scored_in_pieces_without_noise() -> None:
    inputs = (
        tensor("x", "float32", "batch", 2, role="input"),
        tensor("z", "float32", "batch", 3, role="noise"),
    )
    outputs = (tensor("s", "float32", "batch", role="score.sum"), tensor("other", "float32", "batch"))
    rows = np.arange(300, dtype=np.float32).reshape(150, 2)
    found = scores_of(Sums(), (inputs, outputs), rows)
    assert list(found) == ["sum"]
    assert np.array_equal(found["sum"], rows.sum(1))


def test_scores_become_a_calibration() -> None:
    scoring, files = calibrate({"a": np.linspace(1, 0, 101), "b": np.zeros(101)}, "a", "some data", 0.9)
    assert scoring.default == "a"
    assert scoring.calibrations["a"].threshold == pytest.approx(0.9)
    assert scoring.calibrations["a"].data == "some data (101)"
    kept = np.load(io.BytesIO(files["calibration/a.npy"]))
    assert np.array_equal(kept, np.linspace(0, 1, 101).astype(np.float32))


def test_scores_that_are_no_numbers_make_none() -> None:
    with pytest.raises(DraftError, match="'a' is not finite"):
        calibrate({"a": np.array([1.0, np.inf])}, "a", "d")


def test_anomalies_do_not_calibrate() -> None:
    data = Labelled(np.zeros((12, 1), np.float32), np.arange(12) > 10, "d.npz")
    assert of_normal({"a": np.arange(12, dtype=np.float32)}, data)["a"].tolist() == list(range(11))
    few = Labelled(np.zeros((12, 1), np.float32), np.arange(12) > 8, "d.npz")
    with pytest.raises(DraftError, match=r"takes 10 normal items at least; d\.npz leaves 9"):
        of_normal({}, few)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=50))
def test_auroc_is_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    values, truth = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    found = measured({"a": values}, truth, "d")
    if truth.all() or not truth.any():
        assert not found
    else:
        assert auroc(values[~truth], values[truth]) == pytest.approx(roc_auc_score(truth, values))
        assert found["auroc.a"].data == f"d: {(~truth).sum()} normal items and {truth.sum()} anomalies"
