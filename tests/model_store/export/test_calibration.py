"""Files of items, and the calibrations they make."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from model_store.export.calibration import (
    MOST_LATENTS,
    calibrate,
    measured,
    of_normal,
    read_items,
    scores_of,
)
from model_store.export.draft import tensor
from model_store.export.errors import DraftError
from model_store.labelled import Labelled


def test_a_file_that_says_nothing_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", Y=np.ones(3))
    with pytest.raises(DraftError, match=r"data\.npz has no array X, only Y"):
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


def test_latents_are_kept_beside_the_scores_of_as_many_items_as_are_watched() -> None:
    latents = np.random.default_rng(0).normal(size=(MOST_LATENTS + 1, 2))
    scoring, files = calibrate({"a": np.zeros(len(latents))}, "a", "d", latents=latents)
    assert scoring.latents is not None
    kept = np.load(io.BytesIO(files[scoring.latents]), allow_pickle=False)
    assert kept.dtype == np.float32
    assert np.array_equal(kept, latents[:MOST_LATENTS].astype(np.float32))


def test_scores_that_are_no_numbers_make_none() -> None:
    with pytest.raises(DraftError, match="'a' is not finite"):
        calibrate({"a": np.array([1.0, np.inf])}, "a", "d")


def test_anomalies_do_not_calibrate() -> None:
    data = Labelled(np.zeros((12, 1), np.float32), np.arange(12) > 10, "d.npz")
    assert of_normal({"a": np.arange(12, dtype=np.float32)}, data)["a"].tolist() == list(range(11))
    few = Labelled(np.zeros((12, 1), np.float32), np.arange(12) > 8, "d.npz")
    with pytest.raises(DraftError, match=r"takes 10 normal items at least; d\.npz leaves 9"):
        of_normal({}, few)


def test_labels_make_figures() -> None:
    truth = np.arange(10) >= 7
    assert measured({"a": np.arange(10)}, np.zeros(10, np.bool_), "d") == {}
    found = measured({"a": np.arange(10), "b": np.zeros(10)}, truth, "d")
    assert {name: each.value for name, each in found.items()} == {"auroc.a": 1, "auroc.b": 0.5}
    assert found["auroc.a"].data == "d: 7 normal items and 3 anomalies"
