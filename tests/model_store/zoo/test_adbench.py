from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.zoo import adbench
from tests.model_store.zoo.tiny_rows import write_tables


def test_half_of_the_normal_rows_are_learned_from() -> None:
    values = np.arange(30, dtype=np.float32)[:, None]
    anomalous = np.arange(30) >= 24
    rows = adbench.split("made up", values, anomalous)
    assert len(rows.normal) == 12
    assert rows.anomalous.sum() == 6
    assert set(rows.judged[rows.anomalous][:, 0]) == set(range(24, 30))
    assert sorted([*rows.normal[:, 0], *rows.held[:, 0]]) == list(range(24))


def test_a_seed_splits_again_alike_and_another_otherwise() -> None:
    values, anomalous = np.arange(30, dtype=np.float32)[:, None], np.arange(30) >= 24
    first, again, other = (adbench.split("", values, anomalous, seed).normal for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_so_many_rows_are_judged_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adbench, "MOST_JUDGED", 10)
    rows = adbench.split("", np.arange(50, dtype=np.float32)[:, None], np.arange(50) >= 30)
    assert len(rows.judged) == len(rows.anomalous) == 10


def test_sets_are_read_by_name(tmp_path: Path) -> None:
    found = [adbench.read(path) for path in adbench.files(write_tables(tmp_path))]
    assert [each.name for each in found] == ["1_other", "28_pendigits"]
    assert found[0].normal.shape == (30, 16)


def test_no_sets_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(adbench.DataError, match=r"holds no \.npz"):
        adbench.files(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.zeros((4, 2))}, "no arrays X and y"),
        ({"X": np.zeros((4, 2)), "y": np.zeros(3)}, "no row of finite numbers"),
        ({"X": np.full((4, 2), np.nan), "y": np.zeros(4)}, "no row of finite numbers"),
        ({"X": np.zeros((4, 2)), "y": np.full(4, 2)}, "other labels than 0 and 1"),
        ({"X": np.zeros((4, 2)), "y": np.ones(4)}, "nothing normal"),
    ],
)
def test_wrong_files_are_a_sentence(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "set.npz", allow_pickle=False, **arrays)
    with pytest.raises(adbench.DataError, match=words):
        adbench.read(tmp_path / "set.npz")


def test_what_does_not_vary_keeps_its_unit() -> None:
    mean, deviation = adbench.units(np.array([[1, 1e6], [3, 1e6]], np.float32))
    assert mean.tolist() == [2, 1e6]
    assert deviation.tolist() == [1, 1]


def test_kept_rows_are_some_of_the_rows() -> None:
    values = np.arange(20, dtype=np.float32)[:, None]
    assert adbench.kept(values) is values
    chosen = adbench.kept(values, most=5)[:, 0]
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(range(20))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_neighbours_are_those_of_what_is_known(seed: int, nearest: int) -> None:
    chance = np.random.default_rng(seed)
    rows, kept = (chance.standard_normal((count, 4)).astype(np.float32) for count in (5, 9))
    known = (chance.random((5, 4)) < 0.7).astype(np.float32)
    found, places = adbench.distances(rows, known, kept, nearest)
    every = np.sqrt(((rows[:, None] - kept) ** 2 * known[:, None]).sum(2))
    np.testing.assert_allclose(found, np.sort(every, 1)[:, :nearest], atol=2e-3)
    np.testing.assert_allclose(np.take_along_axis(every, places, 1), found, atol=2e-3)


@given(st.floats(0, 1), st.integers(1, 5))
def test_something_of_each_row_stays(share: float, features: int) -> None:
    away = adbench.hidden(np.zeros((40, features), np.float32), share)
    assert not away.all(axis=1).any()


def test_errors_are_those_of_what_was_hidden() -> None:
    rows, filled = np.zeros((2, 2), np.float32), np.array([[3, 100], [4, 100]], np.float32)
    assert adbench.error(filled, rows, np.array([[True, False], [True, False]])) == pytest.approx(12.5**0.5)
