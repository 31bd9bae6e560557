"""Files of items, and what they say of them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.labelled import WrongArrays, read_items

with io.BytesIO() as _file:
    np.save(_file, np.ones((20, 3)))
    ARRAY = _file.getvalue()


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = np.arange(12.0).reshape(4, 3)

    data = read_items(saved(tmp_path, X=rows, y=np.array([[0], [1], [0], [1]])))

    assert data.items.dtype == np.float32
    assert np.array_equal(data.items, rows)
    assert data.anomalous.tolist() == [False, True, False, True]
    assert np.array_equal(data.normal, rows[::2])
    assert data.file == "data.npz"
    assert (data.masks, data.prompts) == (None, ())


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
        ({"X": np.ones((3, 2)), "y": np.ones(2)}, "y is of 2 items, X of 3"),
        ({"X": np.ones((3, 2)), "y": np.ones((3, 2))}, "y has 6 labels for 3 items"),
        ({"X": np.ones((3, 2)), "masks": np.ones((2, 1, 1))}, "masks is of 2 items, X of 3"),
        (
            {"X": np.ones((2, 2)), "y": np.zeros(2), "masks": np.eye(2)[:, None]},
            "item 0 is normal by y, and its mask",
        ),
        ({"X": np.ones((3, 2)), "prompts": np.ones(3)}, r"prompts is float64\[3\], where texts"),
        ({"X": np.ones((3, 2)), "y": np.array([0, 1, 2])}, "a label in y is 0"),
        ({"X": np.array([[None]])}, "cannot be read"),
    ],
)
def test_files_that_say_nothing_are_refused(
    arrays: Mapping[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(WrongArrays, match=complaint):
        read_items(saved(tmp_path, **arrays))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"\x93NUMPY", ARRAY])
def test_what_is_no_archive_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(WrongArrays, match=r"data\.npz"):
        read_items(tmp_path / "data.npz")


def test_defects_make_anomalies_and_prompts_are_kept(tmp_path: Path) -> None:
    masks = np.zeros((3, 2, 2), np.uint8)
    masks[1, 0, 0] = 255
    data = read_items(saved(tmp_path, X=np.ones((3, 2, 2)), masks=masks, prompts=np.array(["a", "b c", ""])))
    assert data.anomalous.tolist() == [False, True, False]
    assert data.masks is not None
    assert data.masks.sum() == 1
    assert data.prompts == ("a", "b c", "")
