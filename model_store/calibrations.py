"""Calibrations made while a model is served: immutable files beside the packages, and which of them are defaults.

`<root>/<model>/<version>/<id>.json`, the id being the file's digest; `defaults.json` names one for each score. Knows
numbers and files, no model. Writers take turns; readers take no lock and see the old state or the new one.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

import orjson
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from model_store.errors import (
    CalibrationInUse,
    CalibrationNotFound,
    StoreReadOnly,
    StoreUnavailable,
    WrongDigest,
)
from model_store.fields import Finite, Part
from model_store.manifest import Name, Version
from model_store.seal import locked, sync_folder, write_durably

Method: TypeAlias = Literal["quantile", "false_positive_rate", "f1"]
Stamp: TypeAlias = tuple[int, int] | None

_DIGITS: Final = 32
_ID: Final = frozenset("0123456789abcdef")
_DEFAULTS: Final = "defaults.json"
_PARTIAL: Final = ".partial"
_CHOSEN: Final = TypeAdapter[dict[str, str]](dict[str, str])
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Latents(Part):
    """Normal items' latents: mean and spread of each dimension, and how far the items are from there, ascending."""

    mean: tuple[Finite, ...]
    spread: tuple[Annotated[Finite, Field(gt=0)], ...]
    distances: tuple[Finite, ...]


class Kept(Part):
    """One calibration of one score. `scores` are normal items', ascending; `level` is the quantile, or the rate."""

    model: Name
    version: Version
    score: str
    method: Method
    level: Finite | None = None
    threshold: Finite
    scores: Annotated[tuple[Finite, ...], Field(min_length=1)]
    anomalies: Annotated[int, Field(ge=0)] = 0
    f1: Finite | None = None
    latents: Latents | None = None

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if list(self.scores) != sorted(self.scores):
            raise ValueError("scores do not ascend")
        return self


class CalibrationFolder:
    """Those of one version of one model. Its folder need not exist before the first one is added."""

    def __init__(self, root: Path, model: str, version: str) -> None:
        self.folder = root / model / version

    def ids(self) -> list[str]:
        """All of them, oldest first. Raises StoreUnavailable."""
        with _reading():
            if not self.folder.is_dir():
                return []
            found = [(entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(self.folder)]
        names = [name.removesuffix(".json") for _, name in sorted(found) if name.endswith(".json")]
        return [name for name in names if _is_id(name)]

    def read(self, identity: str) -> tuple[Kept, int]:
        """One, and when it was made (seconds since 1970). Raises CalibrationNotFound, WrongDigest, StoreUnavailable."""
        path = self._place(identity)
        with _reading():
            try:
                raw, created = path.read_bytes(), int(path.stat().st_mtime)
            except FileNotFoundError:
                raise CalibrationNotFound("there is no such calibration") from None
        if _identity(raw) != identity:
            raise WrongDigest("the calibration is not what was kept")
        return Kept.model_validate_json(raw), created

    def add(self, kept: Kept) -> str:
        """Write one; returns its id. What is there already stays as it is. Raises StoreReadOnly, StoreUnavailable."""
        raw = orjson.dumps(kept.model_dump(mode="json"))
        identity = _identity(raw)
        with self._writing():
            if not (self.folder / f"{identity}.json").exists():
                self._put(f"{identity}.json", raw)
        return identity

    def remove(self, identity: str) -> None:
        """Delete one that is no default. Raises CalibrationNotFound, CalibrationInUse, StoreReadOnly, StoreUnavailable."""
        path = self._place(identity)
        with self._writing():
            if identity in self.defaults().values():
                raise CalibrationInUse("the calibration is a default")
            try:
                path.unlink()
            except FileNotFoundError:
                raise CalibrationNotFound("there is no such calibration") from None
            sync_folder(self.folder)

    def stamp(self) -> Stamp:
        """Something else after every change of the defaults. Raises StoreUnavailable."""
        with _reading():
            try:
                status = (self.folder / _DEFAULTS).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status.st_ino, status.st_mtime_ns

    def defaults(self) -> dict[str, str]:
        """Ids by score. Raises StoreUnavailable."""
        with _reading():
            try:
                return _CHOSEN.validate_json((self.folder / _DEFAULTS).read_bytes())
            except (FileNotFoundError, NotADirectoryError):
                return {}
            except ValidationError as error:
                raise StoreUnavailable("the defaults of calibrations are damaged") from error

    def choose(self, identity: str) -> None:
        """Make one the default of its score. Raises CalibrationNotFound, StoreReadOnly, StoreUnavailable, WrongDigest."""
        with self._writing():
            kept, _ = self.read(identity)
            self._put(_DEFAULTS, orjson.dumps({**self.defaults(), kept.score: identity}))

    def reset(self) -> None:
        """No defaults any more. Raises StoreReadOnly, StoreUnavailable."""
        with self._writing():
            self._put(_DEFAULTS, b"{}")

    def _place(self, identity: str) -> Path:
        if not _is_id(identity):
            raise CalibrationNotFound("there is no such calibration")
        return self.folder / f"{identity}.json"

    def _put(self, name: str, raw: bytes) -> None:
        """Write aside and rename. A crashed writer's leftover is overwritten: only the holder of the lock writes."""
        aside = self.folder / _PARTIAL
        aside.unlink(missing_ok=True)
        write_durably(aside, raw)
        aside.replace(self.folder / name)
        sync_folder(self.folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with locked(self.folder):
                yield
        except OSError as error:
            if error.errno in _READ_ONLY:
                raise StoreReadOnly("calibrations cannot be kept: the folder is read-only") from error
            raise StoreUnavailable(
                f"calibrations cannot be kept: {error.strerror or type(error).__name__}"
            ) from error


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"calibrations cannot be read: {error.strerror or type(error).__name__}"
        ) from error


def _identity(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:_DIGITS]


def _is_id(text: str) -> bool:
    return len(text) == _DIGITS and _ID.issuperset(text)
