"""Where packages come from: a local folder, or any fsspec address behind a verified local cache.

Knows names and versions and hands out verified packages; opens no graph.
"""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model_store.errors import PackageNotFound, StoreUnavailable
from model_store.manifest import Manifest
from model_store.package import Package
from model_store.remote import Remote
from model_store.seal import seal
from model_store.shelf import Shelf
from model_store.verify import LIMITS, Limits, verify, with_links

__all__ = ["Limits", "Package", "Store", "seal", "shipped", "verify"]

_CALIBRATIONS: Final = ".calibrations"
_OTHER_CALIBRATIONS: Final = Path(".local/share/atelier/calibrations")  # below the user's home
DEFAULT_CACHE: Final = Path(".cache/atelier/packages")  # below the user's home


class Store:
    """Packages at one address; `cache` is where those of a remote address are kept (`~/.cache/atelier/packages`)."""

    def __init__(self, url: str | Path, cache: Path | None = None, limits: Limits = LIMITS) -> None:
        """Raises StoreUnavailable for an address no installed file system understands."""
        self.url = str(url)
        try:
            files, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            raise StoreUnavailable(f"the store's address is not understood: {error}") from error
        self._shelf: Shelf | Remote
        if isinstance(files, LocalFileSystem):
            folder = Path(root)
            self._shelf = Shelf(folder, with_links(limits) if folder == shipped() else limits)
        else:
            home = cache or Path.home() / DEFAULT_CACHE
            self._shelf = Remote(files, root, Shelf(home / _entry(self.url), limits), limits)

    def names(self) -> list[str]:
        """Names with at least one version, sorted. Raises StoreUnavailable."""
        return self._shelf.names()

    def versions(self, name: str) -> list[str]:
        """Versions of a name in ascending order; none for an unknown name. Raises StoreUnavailable."""
        return self._shelf.versions(name)

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, or of the latest. Raises PackageNotFound, InvalidManifest, WrongDigest, ..."""
        return self._shelf.manifest(name, self._latest(name) if version is None else version)

    def open(self, name: str, version: str | None = None) -> Package:
        """A version, or the latest, verified and on local disk.

        Raises PackageNotFound, StoreUnavailable and whatever `verify` finds.
        """
        return self._shelf.open(name, self._latest(name) if version is None else version)

    def gate(self, name: str) -> bytes | None:
        """What new versions of a name must pass, `<name>/gate.yaml` as it is written; None without. Raises StoreUnavailable.

        Whoever adds packages asks for it; `publish` does not, as it has no figures.
        """
        return self._shelf.gate(name)

    def publish(self, folder: Path) -> Manifest:
        """Add a finished, sealed package folder under the name and version its manifest says.

        All of it becomes visible at once or nothing does. Raises AlreadyPublished, StoreUnavailable, whatever `verify`
        finds.
        """
        return self._shelf.publish(folder)

    def _latest(self, name: str) -> str:
        versions = self.versions(name)
        if not versions:
            raise PackageNotFound(f"there is no package {name!r:.80} in the store")
        return versions[-1]


def calibrations_beside(store: str | Path) -> Path:
    """Where calibrations of a store's packages are kept: in its folder, or below the user's home where it is none of ours.

    Packages of a remote address, and those shipped with Atelier, lie where nothing is written.
    """
    files, root = fsspec.core.url_to_fs(str(store))
    if isinstance(files, LocalFileSystem) and Path(root) != shipped():
        return Path(root) / _CALIBRATIONS
    name = "shipped" if isinstance(files, LocalFileSystem) else _entry(str(store))
    return Path.home() / _OTHER_CALIBRATIONS / name


def _entry(url: str) -> str:
    """One folder for each address: two stores may have different packages under one name."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def shipped() -> Path:
    """Folder of the packages shipped with Atelier: the default store."""
    return Path(str(resources.files("model_store"))) / "packages"
