"""A store at any fsspec address (s3, gs, memory, ...), read through a verified local cache.

`model.json` is uploaded last, so a version is visible only when it is complete; nothing is used before it is verified.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store.errors import (
    AlreadyPublished,
    InvalidManifest,
    MissingFile,
    PackageError,
    PackageNotFound,
    StoreUnavailable,
    TooLarge,
)
from model_store.files import CHUNK, Folder
from model_store.manifest import Manifest
from model_store.package import Package
from model_store.shelf import GATE, Shelf, is_name, is_version
from model_store.verify import MANIFEST, Limits, parse, verify, with_links


class Remote:
    """Packages under one address. `files` is an fsspec file system, `root` a path on it."""

    def __init__(self, files: Any, root: str, cache: Shelf, limits: Limits) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self._cache = cache
        self._limits = limits

    def names(self) -> list[str]:
        """Names with at least one complete version, sorted. Raises StoreUnavailable."""
        return sorted({name for name, _ in self._complete(self._root)})

    def versions(self, name: str) -> list[str]:
        """Complete versions of a name, oldest first; none for an unknown name. Raises StoreUnavailable."""
        if not is_name(name):
            return []
        return sorted((version for _, version in self._complete(f"{self._root}/{name}")), key=int)

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest alone, checked against its own digest. Raises PackageNotFound, InvalidManifest, ..."""
        return self._manifest(name, version)[1]

    def open(self, name: str, version: str) -> Package:
        """The package from the cache, fetched where it is not there or no longer sound.

        Raises PackageNotFound, StoreUnavailable and whatever `verify` finds.
        """
        try:
            return self._cache.open(name, version)
        except PackageError:
            raw, manifest = self._manifest(name, version)
            place = self._place(name, version)
            self._cache.add(
                raw, manifest, lambda path, sealed: self._content(f"{place}/{path}", sealed.bytes), mend=True
            )
        return self._cache.open(name, version)

    def gate(self, name: str) -> bytes | None:
        """What `Store.gate` says."""
        if not is_name(name):
            return None
        try:
            return b"".join(self._content(f"{self._root}/{name}/{GATE}", self._limits.manifest_bytes))
        except MissingFile:
            return None

    def publish(self, folder: Path) -> Manifest:
        """Upload a finished package. Raises AlreadyPublished, StoreUnavailable and whatever `verify` finds."""
        verify(folder, with_links(self._limits))
        with Folder(folder, hard_links=True) as opened, _reaching():
            raw = opened.read_unsealed(MANIFEST, self._limits.manifest_bytes)
            manifest = parse(raw, self._limits)
            place = self._place(manifest.name, manifest.version)
            if self._files.exists(f"{place}/{MANIFEST}"):
                raise _exists(manifest)
            for path, sealed in manifest.files.items():
                self._upload(f"{place}/{path}", opened.stream(path, sealed))
            try:
                self._files.pipe_file(f"{place}/{MANIFEST}", raw, mode="create")
            except FileExistsError as error:
                raise _exists(manifest) from error
        return manifest

    def _place(self, name: str, version: str) -> str:
        return f"{self._root}/{name}/{version}"

    def _upload(self, path: str, chunks: Iterator[bytes]) -> None:
        self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with self._files.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def _complete(self, root: str) -> set[tuple[str, str]]:
        """(name, version) of every manifest below `root`."""
        with _reaching():
            self._files.invalidate_cache()
            paths = [path.split("/") for path in self._files.find(root) if path.endswith(f"/{MANIFEST}")]
        depth = len(self._root.split("/")) + 3
        found = {(path[-3], path[-2]) for path in paths if len(path) == depth}
        return {(name, version) for name, version in found if is_name(name) and is_version(version)}

    def _manifest(self, name: str, version: str) -> tuple[bytes, Manifest]:
        if not (is_name(name) and is_version(version)):
            raise PackageNotFound(f"there is no {name:.80}:{version:.80} in the store")
        limit = self._limits.manifest_bytes
        try:
            raw = b"".join(self._content(f"{self._place(name, version)}/{MANIFEST}", limit))
        except MissingFile as error:
            raise PackageNotFound(f"there is no {name}:{version} in the store") from error
        if len(raw) > limit:
            raise TooLarge(f"{MANIFEST} has more than {limit} bytes")
        manifest = parse(raw, self._limits)
        if (manifest.name, manifest.version) != (name, version):
            raise InvalidManifest(
                f"{name}:{version} holds a package that calls itself {manifest.name}:{manifest.version}"
            )
        return raw, manifest

    def _content(self, path: str, limit: int) -> Iterator[bytes]:
        """A remote file in chunks, at most one byte more than `limit`. Raises MissingFile, StoreUnavailable."""
        left = limit + 1
        with _reaching():
            try:
                with self._files.open(path, "rb") as file:
                    while left and (chunk := file.read(min(CHUNK, left))):
                        left -= len(chunk)
                        yield chunk
            except FileNotFoundError as error:
                raise MissingFile(f"{path.rsplit('/', 1)[-1]} is missing in the store") from error


@contextmanager
def _reaching() -> Iterator[None]:
    """What a file system raises, in this package's words."""
    try:
        yield
    except PackageError:
        raise
    except Exception as error:  # fsspec's file systems are plug-ins: each raises what its own library raises
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreUnavailable(f"the store cannot be reached: {said}") from error


def _exists(manifest: Manifest) -> AlreadyPublished:
    return AlreadyPublished(f"{manifest.name}:{manifest.version} exists, and versions never change")
