"""One model's calibrations, as two replicas with a folder in common see them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest, CalibrationNotFound, ServingError, Unavailable
from deployments.reconstruction.calibrated import Calibrated
from deployments.reconstruction.calibrations import Calibrations
from model_store.calibrations import CalibrationFolder, Kept
from model_store.errors import StoreReadOnly
from model_store.manifest import Manifest
from model_store.store import Store


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manifest(tiny: Path) -> Manifest:
    return Store(str(tiny)).open("tiny-ae").manifest


@pytest.fixture
def folder(tmp_path: Path) -> CalibrationFolder:
    return CalibrationFolder(tmp_path, "tiny-ae", "1")


def opened(manifest: Manifest, folder: CalibrationFolder | None, clock: Clock) -> Calibrations:
    normal = np.linspace(0, 0.1, 11)
    own = {score: Calibrated(normal, 0.095, id_="tiny-ae:1") for score in ("l1", "peak")}
    return Calibrations(manifest, own, folder, clock)


@pytest.fixture
def one(manifest: Manifest, folder: CalibrationFolder, clock: Clock) -> Calibrations:
    return opened(manifest, folder, clock)


@pytest.fixture
def other(manifest: Manifest, folder: CalibrationFolder, clock: Clock) -> Calibrations:
    return opened(manifest, folder, clock)


def kept(threshold: float = 0.5, score: str = "l1") -> Kept:
    return Kept(
        model="tiny-ae",
        version="1",
        score=score,
        method="quantile",
        level=0.9,
        threshold=threshold,
        scores=(0.1, 0.2),
    )


def chosen(calibrations: Calibrations, score: str | None = None, identity: str | None = None) -> Any:
    """As a request does."""
    if calibrations.stale(identity):
        calibrations.refresh(identity)
    return calibrations.choose(score, identity).calibrated


def refused(act: Any, *args: Any, **fields: Any) -> ServingError:
    with pytest.raises(ServingError) as error:
        act(*args, **fields)
    return error.value


def test_one_that_was_made_is_used_by_its_id_alone(one: Calibrations) -> None:
    made = one.add(kept(), default=False)
    assert made.id.startswith("tiny-ae:1:")
    assert (made.items, made.threshold, made.level, made.default) == (2, 0.5, 0.9, False)
    assert chosen(one).threshold == 0.095
    assert chosen(one, identity=made.id).threshold == 0.5
    assert one.choose(None, made.id).score == "l1"
    assert chosen(one, "l1", made.id).id == made.id
    assert refused(chosen, one, "peak", made.id).param == "calibration"


def test_a_default_is_of_its_score(one: Calibrations) -> None:
    made = one.add(kept(score="peak"), default=True)
    assert made.default
    assert chosen(one, "peak").id == made.id
    assert chosen(one).id == "tiny-ae:1"
    assert chosen(one, "peak", "tiny-ae:1").threshold == 0.095
    assert one.thresholds == {"l1": 0.095, "peak": 0.5}


def test_another_replica_sees_it_within_a_second(
    one: Calibrations, other: Calibrations, clock: Clock
) -> None:
    assert chosen(other).id == "tiny-ae:1"
    made = one.add(kept(), default=True)
    clock.now = 0.5
    assert chosen(other).id == "tiny-ae:1"
    clock.now = 1.0
    assert chosen(other).id == made.id


def test_another_replica_takes_it_by_id_at_once(one: Calibrations, other: Calibrations) -> None:
    chosen(other)
    made = one.add(kept(), default=False)
    assert chosen(other, identity=made.id).threshold == 0.5


def test_it_survives_a_restart(
    one: Calibrations, manifest: Manifest, folder: CalibrationFolder, clock: Clock
) -> None:
    made = one.add(kept(), default=True)
    again = opened(manifest, folder, clock)
    assert chosen(again).id == made.id
    assert again.find(made.id) == made


def test_once_a_second_one_request_looks(one: Calibrations, clock: Clock) -> None:
    assert one.stale(None)
    one.refresh()
    assert not one.stale(None)
    clock.now = 1.0
    assert [one.stale(None) for _ in range(3)] == [True, False, False]


def test_all_are_listed(one: Calibrations) -> None:
    first = one.add(kept(), default=True)
    second = one.add(kept(0.6), default=False)
    own_l1, own_peak, *made = one.all()
    assert made == [first, second]
    assert (own_l1.id, own_l1.score, own_l1.level, own_l1.default) == ("tiny-ae:1", "l1", 0.95, False)
    assert (own_peak.score, own_peak.default, own_peak.items) == ("peak", True, 11)
    assert one.find("tiny-ae:1") == own_l1


def test_the_packages_own_is_the_default_again(one: Calibrations) -> None:
    made = one.add(kept(), default=True)
    assert one.make_default("tiny-ae:1").default
    assert chosen(one).id == "tiny-ae:1"
    assert one.make_default(made.id).default
    assert chosen(one).id == made.id


def test_what_is_deleted_is_gone(one: Calibrations, other: Calibrations, clock: Clock) -> None:
    made = one.add(kept(), default=True)
    assert refused(one.delete, made.id).code == "calibration_in_use"
    chosen(other, identity=made.id)
    one.make_default("tiny-ae:1")
    assert one.delete(made.id).id == made.id
    assert refused(chosen, one, None, made.id).code == "unknown_calibration"
    clock.now = 2.0
    assert refused(chosen, other, None, made.id).code == "unknown_calibration"


@pytest.mark.parametrize(
    "identity", ["tiny-ae:2", "tiny-ae:1:", "tiny-ae:1:" + "a" * 32, "x", "tiny-ae:1:../x"]
)
def test_an_unknown_one(one: Calibrations, identity: str) -> None:
    error = refused(chosen, one, None, identity)
    assert (type(error), error.code, error.param) == (BadRequest, "unknown_calibration", "calibration")
    for act in (one.find, one.make_default, one.delete):
        assert isinstance(refused(act, identity), CalibrationNotFound)


def test_a_packages_own_cannot_be_deleted(one: Calibrations) -> None:
    assert refused(one.delete, "tiny-ae:1").param == "id"


def test_many_are_read_and_few_are_held(one: Calibrations) -> None:
    made = [one.add(kept(place), default=False).id for place in range(70)]
    assert [chosen(one, identity=each).threshold for each in made] == list(range(70))
    assert len(one._held) <= 64


def test_who_cannot_see_the_defaults_scores_nothing(
    one: Calibrations, folder: CalibrationFolder, clock: Clock
) -> None:
    made = one.add(kept(), default=True)
    assert chosen(one).id == made.id
    path = folder.folder / "defaults.json"
    whole = path.read_bytes()
    path.write_bytes(b"{")
    clock.now = 1.0
    assert isinstance(refused(chosen, one), Unavailable)
    assert isinstance(refused(chosen, one), Unavailable)
    path.write_bytes(whole)
    assert chosen(one).id == made.id


def test_a_folder_that_is_read_only(
    one: Calibrations, folder: CalibrationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise StoreReadOnly("read-only")

    monkeypatch.setattr(folder, "add", read_only)
    error = refused(one.add, kept(), default=False)
    assert (type(error), error.code) == (BadRequest, "calibrations_read_only")


def test_without_a_folder_there_are_the_packages_own(manifest: Manifest, clock: Clock) -> None:
    bare = opened(manifest, None, clock)
    assert chosen(bare).id == "tiny-ae:1"
    assert len(bare.all()) == 2
    assert refused(bare.add, kept(), default=False).code == "calibrations_read_only"
    assert isinstance(refused(bare.find, "tiny-ae:1:" + "a" * 32), CalibrationNotFound)
