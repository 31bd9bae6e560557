import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model_store import calibrations
from model_store.calibrations import CalibrationFolder, Kept, Latents
from model_store.errors import (
    CalibrationInUse,
    CalibrationNotFound,
    StoreReadOnly,
    StoreUnavailable,
    WrongDigest,
)


def kept(threshold: float = 0.5, score: str = "l1", **changes: Any) -> Kept:
    fields: dict[str, Any] = {"method": "quantile", "level": 0.9, "scores": (0.1, 0.2, 1 / 3)} | changes
    return Kept(model="m", version="1", score=score, threshold=threshold, **fields)


@pytest.fixture
def folder(tmp_path: Path) -> CalibrationFolder:
    return CalibrationFolder(tmp_path / "kept", "m", "1")


def test_before_the_first_there_is_none(folder: CalibrationFolder) -> None:
    assert (folder.ids(), folder.defaults(), folder.stamp()) == ([], {}, None)
    assert not folder.folder.exists()


def test_what_is_kept_comes_back_bit_by_bit(folder: CalibrationFolder) -> None:
    latents = Latents(mean=(0.1, -1e-30), spread=(1.0, 2.0), distances=(0.5, 1.5, 2.0))
    whole = kept(latents=latents, f1=2 / 3, anomalies=7)
    identity = folder.add(whole)
    found, created = folder.read(identity)
    assert found == whole
    assert created > 1_700_000_000
    assert folder.ids() == [identity]


def test_the_same_again_is_the_same(folder: CalibrationFolder) -> None:
    assert folder.add(kept()) == folder.add(kept())
    assert len(folder.ids()) == 1
    assert folder.add(kept(0.6)) != folder.add(kept())
    assert len(folder.ids()) == 2


def test_each_score_has_a_default(folder: CalibrationFolder) -> None:
    first, second, other = folder.add(kept()), folder.add(kept(0.6)), folder.add(kept(score="l2"))
    stamps = [folder.stamp()]
    for identity in (first, other, second):
        folder.choose(identity)
        stamps.append(folder.stamp())
    assert folder.defaults() == {"l1": second, "l2": other}
    assert len(set(stamps)) == len(stamps)
    folder.reset()
    assert folder.defaults() == {}


def test_a_default_cannot_be_deleted(folder: CalibrationFolder) -> None:
    first, second = folder.add(kept()), folder.add(kept(0.6))
    folder.choose(first)
    with pytest.raises(CalibrationInUse):
        folder.remove(first)
    folder.remove(second)
    assert folder.ids() == [first]


@pytest.mark.parametrize("identity", ["", "f" * 32, "../" * 10 + "xx", "F" * 32, "a" * 31, "default" * 4])
def test_what_is_not_there(folder: CalibrationFolder, identity: str) -> None:
    folder.add(kept())
    for act in (folder.read, folder.remove, folder.choose):
        with pytest.raises(CalibrationNotFound):
            act(identity)


def test_a_changed_file_is_refused(folder: CalibrationFolder) -> None:
    identity = folder.add(kept())
    path = folder.folder / f"{identity}.json"
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    with pytest.raises(WrongDigest):
        folder.read(identity)


def test_damaged_defaults_are_no_defaults_at_all(folder: CalibrationFolder) -> None:
    folder.choose(folder.add(kept()))
    (folder.folder / "defaults.json").write_text("{")
    with pytest.raises(StoreUnavailable):
        folder.defaults()


@pytest.mark.parametrize("step", ["write_durably", "replace", "sync_folder"])
def test_a_crash_leaves_the_old_state_or_the_new_one(
    folder: CalibrationFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first = folder.add(kept())
    folder.choose(first)
    second = folder.add(kept(0.6))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "replace" else calibrations, step, crash)
        with pytest.raises(KeyboardInterrupt):
            folder.choose(second)
        with pytest.raises(KeyboardInterrupt):
            folder.add(kept(0.7))
    assert folder.defaults()["l1"] in (first, second)
    assert all(folder.read(each) for each in folder.ids())
    folder.choose(second)
    folder.add(kept(0.7))
    assert folder.defaults() == {"l1": second}
    assert len(folder.ids()) == 3


def test_writers_take_turns(folder: CalibrationFolder) -> None:
    made = [kept(score=f"s{place}") for place in range(8)]

    def keep(each: Kept) -> None:
        own = CalibrationFolder(folder.folder.parent.parent, "m", "1")
        own.choose(own.add(each))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, made))
    assert folder.defaults().keys() == {each.score for each in made}


@pytest.mark.parametrize(
    ("number", "refusal"),
    [(errno.EROFS, StoreReadOnly), (errno.EACCES, StoreReadOnly), (errno.ENOSPC, StoreUnavailable)],
)
def test_a_folder_that_cannot_be_written(
    folder: CalibrationFolder, monkeypatch: pytest.MonkeyPatch, number: int, refusal: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(calibrations, "write_durably", fail)
    with pytest.raises(StoreUnavailable) as error:
        folder.add(kept())
    assert type(error.value) is refusal


def test_a_file_in_the_folders_place(folder: CalibrationFolder, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    assert folder.stamp() is None
    with pytest.raises(StoreUnavailable):
        folder.add(kept())


@pytest.mark.parametrize(
    "changes",
    [{"scores": ()}, {"scores": (2.0, 1.0)}, {"scores": (float("nan"),)}, {"threshold": float("inf")}],
    ids=str,
)
def test_what_is_no_calibration(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kept(**changes)
