"""One model's calibrations: those of its package, and those made since, of which each score may have a default.

What has been read is kept and never changes, so that a request has one from its beginning to its end. Another replica's
defaults and deletions are seen within a second.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from deployments.errors import BadRequest, CalibrationNotFound, Unavailable
from deployments.messages import Calibration
from deployments.reconstruction.calibrated import Calibrated
from model_store import errors
from model_store.calibrations import CalibrationFolder, Kept, Stamp
from model_store.manifest import Manifest

_LOOK_SECONDS: Final = 1.0
_MOST_HELD: Final = 64


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a request is scored by. `cut`: above it a place of the error map is in the mask; half of its range where nothing says more."""

    score: str
    calibrated: Calibrated
    cut: float = 0.5


class Calibrations:
    """Methods that read or write files are for a thread; `stale` and `choose` are for the event loop."""

    def __init__(
        self,
        manifest: Manifest,
        own: Mapping[str, Calibrated],
        folder: CalibrationFolder | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.own = f"{manifest.name}:{manifest.version}"
        self._manifest = manifest
        self._package = own
        self._folder = folder
        self._clock = clock
        self._held: dict[str, Chosen] = {}
        self._defaults: Mapping[str, Calibrated] = {}
        self._stamp: Stamp = None
        self._seen = folder is None  # at least once, and the last time
        self._looked = 0.0
        self._changing = threading.Lock()
        self.names = tuple(own)
        self._default = manifest.scoring.default if manifest.scoring else ""

    # -- for requests ----------------------------------------------------------------------------------------------------

    def stale(self, identity: str | None) -> bool:
        """Whether to `refresh` before one is chosen. Once a second it is true for one who asks."""
        if self._folder is None:
            return False
        unread = identity is not None and identity != self.own and identity not in self._held
        if self._seen and not unread and self._clock() < self._looked + _LOOK_SECONDS:
            return False
        self._looked = self._clock()
        return True

    def refresh(self, identity: str | None = None) -> None:
        """See what is in the folder now; read this one. Raises Unavailable."""
        if self._folder is None:
            return
        try:
            with self._changing, _read():
                self._look(self._folder, identity)
        except Unavailable:
            self._seen = False  # nobody is scored by what may be out of date
            raise
        self._seen, self._looked = True, self._clock()

    def _look(self, folder: CalibrationFolder, identity: str | None) -> None:
        present = set(folder.ids())
        self._held = {key: each for key, each in self._held.items() if _digits(key) in present}
        stamp = folder.stamp()
        if stamp != self._stamp or not self._seen:
            chosen = folder.defaults()
            self._defaults = {score: self._read(digits).calibrated for score, digits in chosen.items()}
            self._stamp = stamp
        if identity is not None and self._is_ours(identity) and _digits(identity) in present:
            self._hold(identity, self._read(_digits(identity)))

    def choose(self, score: str | None, identity: str | None) -> Chosen:
        """By its id, else the default of the score, else the package's. Raises BadRequest."""
        if score is not None and score not in self.names:
            known = ", ".join(self.names)
            raise BadRequest(f"This model's scores are: {known}.", code="unknown_score", param="score")
        if identity is None:
            name = score or self._default
            return Chosen(name, self.usual(name))
        if identity == self.own:
            name = score or self._default
            return Chosen(name, self._package[name])
        chosen = self._held.get(identity)
        if chosen is None:
            raise BadRequest("There is no such calibration.", code="unknown_calibration", param="calibration")
        if score not in (None, chosen.score):
            raise BadRequest(f"This is a calibration of the score '{chosen.score}'.", param="calibration")
        return chosen

    def usual(self, score: str) -> Calibrated:
        """The default calibration of a score."""
        return self._defaults.get(score) or self._package[score]

    @property
    def thresholds(self) -> dict[str, float]:
        """Of each score, as it is scored by default."""
        return {score: self.usual(score).threshold for score in self.names}

    # -- for whoever looks after them --------------------------------------------------------------------------------------

    def add(self, kept: Kept, *, default: bool) -> Calibration:
        """Keep one. Raises BadRequest, Unavailable."""
        folder = self._kept_in()
        with _written():
            digits = folder.add(kept)
            if default:
                folder.choose(digits)
        self.refresh()
        return self._describe(digits)

    def all(self) -> tuple[Calibration, ...]:
        """The package's own, then the others, oldest first. Raises Unavailable."""
        self.refresh()
        with _read():
            digits = self._folder.ids() if self._folder else []
        return (*map(self._own, self.names), *self._described(digits))

    def find(self, identity: str) -> Calibration:
        """One. Raises CalibrationNotFound, Unavailable."""
        self.refresh()
        if identity == self.own:
            return self._own(self._default)
        self._check(identity)
        return self._describe(_digits(identity))

    def make_default(self, identity: str) -> Calibration:
        """Of its score; the package's own, of all scores. Raises BadRequest, CalibrationNotFound, Unavailable."""
        folder = self._kept_in()
        if identity != self.own:
            self._check(identity)
        with _written():
            if identity == self.own:
                folder.reset()
            else:
                folder.choose(_digits(identity))
        return self.find(identity)

    def delete(self, identity: str) -> Calibration:
        """One that is no default; what it was. Raises BadRequest, CalibrationNotFound, Unavailable."""
        folder = self._kept_in()
        if identity == self.own:
            raise BadRequest("A package's own calibration is a part of it.", param="id")
        gone = self.find(identity)
        with _written():
            folder.remove(_digits(identity))
        self.refresh()
        return gone

    def _kept_in(self) -> CalibrationFolder:
        if self._folder is None:
            raise BadRequest("This service keeps no calibrations.", code="calibrations_read_only")
        return self._folder

    def _is_ours(self, identity: str) -> bool:
        return identity == f"{self.own}:{_digits(identity)}"

    def _check(self, identity: str) -> None:
        if self._folder is None or not self._is_ours(identity):
            raise _missing()

    def _hold(self, identity: str, chosen: Chosen) -> None:
        if len(self._held) >= _MOST_HELD:
            del self._held[next(iter(self._held))]
        self._held[identity] = chosen

    def _read(self, digits: str) -> Chosen:
        if self._folder is None:
            raise _missing()
        kept, _ = self._folder.read(digits)
        calibrated = Calibrated(
            kept.scores,
            kept.threshold,
            id_=f"{self.own}:{digits}",
            method=kept.method,
            latents=kept.latents,
        )
        return Chosen(kept.score, calibrated)

    def _described(self, digits: list[str]) -> Iterator[Calibration]:
        for each in digits:
            try:
                yield self._describe(each)
            except CalibrationNotFound:  # deleted meanwhile
                continue

    def _describe(self, digits: str) -> Calibration:
        if self._folder is None:
            raise _missing()
        with _read():
            kept, created = self._folder.read(digits)
        identity = f"{self.own}:{digits}"
        return Calibration(
            id=identity,
            model=kept.model,
            version=kept.version,
            score=kept.score,
            method=kept.method,
            level=kept.level,
            threshold=kept.threshold,
            items=len(kept.scores),
            anomalies=kept.anomalies,
            f1=kept.f1,
            created=created,
            default=self.usual(kept.score).id == identity,
        )

    def _own(self, score: str) -> Calibration:
        calibrated, scoring = self._package[score], self._manifest.scoring
        return Calibration(
            id=self.own,
            model=self._manifest.name,
            version=self._manifest.version,
            score=score,
            method="quantile",
            level=scoring.calibrations[score].quantile if scoring else None,
            threshold=calibrated.threshold,
            items=len(calibrated.scores),
            anomalies=0,
            f1=None,
            created=int(self._manifest.created.timestamp()),
            default=self.usual(score) is calibrated,
        )


def _digits(identity: str) -> str:
    return identity.rpartition(":")[2]


def _missing() -> CalibrationNotFound:
    return CalibrationNotFound("The model has no such calibration.", param="id")


@contextmanager
def _read() -> Iterator[None]:
    try:
        yield
    except errors.CalibrationNotFound:
        raise _missing() from None
    except (errors.PackageError, ValidationError) as error:
        raise Unavailable("The model's calibrations cannot be read now.") from error


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except errors.CalibrationNotFound:
        raise _missing() from None
    except errors.CalibrationInUse:
        message = "This calibration is the default of its score: choose another one first."
        raise BadRequest(message, code="calibration_in_use", param="id") from None
    except errors.StoreReadOnly as error:
        message = "Calibrations cannot be kept here: their folder is read-only."
        raise BadRequest(message, code="calibrations_read_only") from error
    except (errors.PackageError, ValidationError) as error:
        raise Unavailable("The model's calibrations cannot be kept now.") from error
