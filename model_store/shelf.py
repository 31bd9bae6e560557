"""A store in a local folder: `<root>/<name>/<version>/`. Adding is atomic; reading takes no lock and writes nothing.

A version is written aside under a hidden name, synced, and renamed into its place: whoever looks sees all or nothing.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from model_store.errors import (
    AlreadyPublished,
    InvalidManifest,
    LinkedFile,
    PackageError,
    PackageNotFound,
    StoreUnavailable,
)
from model_store.files import Folder, checked
from model_store.manifest import File, Manifest, Name, Version
from model_store.package import Package
from model_store.seal import locked, sync_folder, write_durably
from model_store.verify import MANIFEST, Limits, parse, verify, with_links

Content: TypeAlias = Callable[[str, File], Iterator[bytes]]  # a listed file's bytes, unchecked

GATE: Final = "gate.yaml"
_ASIDE: Final = ".adding-"
_NAME: Final = TypeAdapter[str](Name)
_VERSION: Final = TypeAdapter[str](Version)


def is_name(text: str) -> bool:
    """Whether a package may be called so."""
    return _fits(_NAME, text)


def is_version(text: str) -> bool:
    """Whether a version may be called so."""
    return _fits(_VERSION, text)


def _fits(pattern: TypeAdapter[str], text: str) -> bool:
    try:
        pattern.validate_python(text)
    except ValidationError:
        return False
    return True


class Shelf:
    """Packages in one local folder, which need not exist before the first one is added."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self._limits = limits

    def names(self) -> list[str]:
        """Names with at least one version, sorted. Raises StoreUnavailable where there is no such folder."""
        return sorted(name for name in _folders(self.root) if is_name(name) and self.versions(name))

    def versions(self, name: str) -> list[str]:
        """Versions of a name, oldest first; none for an unknown name."""
        if not is_name(name) or not (self.root / name).is_dir():
            return []
        return sorted(filter(is_version, _folders(self.root / name)), key=int)

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest alone, checked against its own digest. Raises PackageNotFound, InvalidManifest, ..."""
        with Folder(self._place(name, version), hard_links=self._limits.hard_links) as opened:
            manifest = parse(opened.read_unsealed(MANIFEST, self._limits.manifest_bytes), self._limits)
        return _is_called(manifest, name, version)

    def open(self, name: str, version: str) -> Package:
        """The package, verified. Raises PackageNotFound and whatever `verify` finds."""
        place = self._place(name, version)
        return Package(place, _is_called(verify(place, self._limits), name, version), self._limits)

    def gate(self, name: str) -> bytes | None:
        """What `Store.gate` says."""
        if not is_name(name):
            return None
        try:
            return (self.root / name / GATE).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"the store cannot be read: {error.strerror}") from error

    def publish(self, folder: Path) -> Manifest:
        """Add a finished package. Raises AlreadyPublished, StoreUnavailable and whatever `verify` finds."""
        verify(folder, with_links(self._limits))
        with Folder(folder, hard_links=True) as opened:
            raw = opened.read_unsealed(MANIFEST, self._limits.manifest_bytes)
            manifest = parse(raw, self._limits)
            self.add(raw, manifest, opened.stream)
        return manifest

    def add(self, raw: bytes, manifest: Manifest, content: Content, *, mend: bool = False) -> None:
        """Write a version from its manifest and its files' content, all of it or nothing.

        With `mend` a version that stands there already is kept if it is sound and replaced if it is not.
        Raises AlreadyPublished, StoreUnavailable, and WrongSize, WrongDigest, ... where content is not as sealed.
        """
        name, version = manifest.name, manifest.version
        with _writing(), locked(self.root):
            self._sweep()
            place = self.root / name / version
            if os.path.lexists(place):
                if not mend:
                    raise AlreadyPublished(f"{name}:{version} exists, and versions never change")
                if self._is_sound(name, version):
                    return
                self._discard(place)
            aside = self.root / f"{_ASIDE}{name}-{version}"
            try:
                self._write(aside, raw, manifest, content)
                self._move_in(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _write(self, aside: Path, raw: bytes, manifest: Manifest, content: Content) -> None:
        aside.mkdir()
        for path, sealed in manifest.files.items():
            target = aside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for chunk in checked(content(path, sealed), path, sealed):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        write_durably(aside / MANIFEST, raw)
        for folder, _, _ in os.walk(aside):
            sync_folder(Path(folder))
        verify(aside, self._limits)

    def _move_in(self, aside: Path, place: Path) -> None:
        place.parent.mkdir(exist_ok=True)
        sync_folder(self.root)
        aside.rename(place)
        sync_folder(place.parent)

    def _place(self, name: str, version: str) -> Path:
        place = self.root / name / version
        if not (is_name(name) and is_version(version) and os.path.lexists(place)):
            raise PackageNotFound(f"there is no {name:.80}:{version:.80} in the store")
        if place.parent.is_symlink():
            raise LinkedFile(f"{name} is a symbolic link")
        return place

    def _is_sound(self, name: str, version: str) -> bool:
        try:
            self.open(name, version)
        except PackageError:
            return False
        return True

    def _discard(self, place: Path) -> None:
        """Take a broken version out of sight in one step, then delete it."""
        if place.is_dir() and not place.is_symlink():
            aside = self.root / f"{_ASIDE}discarded"
            place.rename(aside)
            shutil.rmtree(aside)
        else:
            place.unlink()

    def _sweep(self) -> None:
        """Remove what a crashed writer left. Only the holder of the lock writes, so nobody's work is taken away."""
        for entry in self.root.iterdir():
            if entry.name.startswith(_ASIDE):
                shutil.rmtree(entry)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"the store cannot be written: {error.strerror or type(error).__name__}"
        ) from error


def _folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise StoreUnavailable(f"the store cannot be read: {error.strerror}") from error


def _is_called(manifest: Manifest, name: str, version: str) -> Manifest:
    if (manifest.name, manifest.version) != (name, version):
        raise InvalidManifest(
            f"{name}:{version} holds a package that calls itself {manifest.name}:{manifest.version}"
        )
    return manifest
