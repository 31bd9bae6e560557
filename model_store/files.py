"""Reading a folder nobody has to trust: no links, no surprises in size, content equal to its digest.

Every file is opened once, component by component without following links; what was hashed is what is returned.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from model_store.errors import (
    LinkedFile,
    MissingFile,
    OutsidePath,
    StoreUnavailable,
    TooLarge,
    WrongDigest,
    WrongSize,
)
from model_store.manifest import File

CHUNK: Final = 1 << 20
LONGEST_PATH: Final = 255
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, so that a named pipe in a file's place is refused instead of waited for.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Folder:
    """An open folder. Its parents are the owner's business; nothing from its own name down is followed anywhere."""

    def __init__(self, path: Path, *, hard_links: bool = False) -> None:
        """Raises MissingFile where there is no such folder, LinkedFile where it is a symbolic link."""
        self._hard_links = hard_links
        self._descriptor = _open(str(path), _FOLDER, shown=path.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def listing(self, limit: int) -> dict[str, int]:
        """Relative path -> bytes of every file below. Raises LinkedFile, and TooLarge beyond `limit` entries."""
        found: dict[str, int] = {}
        try:
            for entries, (path, size) in enumerate(self._walk(self._descriptor, "")):
                if entries >= limit:
                    raise TooLarge(f"the folder holds more than {limit} files and folders")
                if size is not None:
                    found[path] = size
        except OSError as error:
            raise StoreUnavailable(f"the folder cannot be read: {error.strerror}") from error
        return found

    def _walk(self, within: int, prefix: str) -> Iterator[tuple[str, int | None]]:
        """Files with their size, folders with None."""
        with os.scandir(within) as entries:
            for entry in entries:
                path = prefix + entry.name
                if len(path) > LONGEST_PATH:
                    raise TooLarge(f"a path in the folder is longer than {LONGEST_PATH} characters")
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    self._check_regular(status, repr(path))
                    yield path, status.st_size
                    continue
                yield path, None
                inner = _open(entry.name, _FOLDER, within=within, shown=repr(path))
                try:
                    yield from self._walk(inner, path + "/")
                finally:
                    os.close(inner)

    def _check_regular(self, status: os.stat_result, shown: str) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise LinkedFile(f"{shown} is a symbolic link")
        if not stat.S_ISREG(status.st_mode):
            raise LinkedFile(f"{shown} is no regular file")
        if status.st_nlink != 1 and not self._hard_links:
            raise LinkedFile(
                f"{shown} is a hard link: a second name could change it; copy the package instead"
            )

    @contextmanager
    def open(self, relative: str) -> Iterator[tuple[int, int]]:
        """The file's descriptor and its size in bytes. Raises OutsidePath, MissingFile, LinkedFile, StoreUnavailable."""
        *folders, name = relative.split("/")
        if not all((*folders, name)) or {".", ".."} & {*folders, name}:
            raise OutsidePath(f"{relative!r} leaves the package folder")
        within = os.dup(self._descriptor)
        try:
            for folder in folders:
                outer, within = within, _open(folder, _FOLDER, within=within, shown=relative)
                os.close(outer)
            descriptor = _open(name, _FILE, within=within, shown=relative)
        finally:
            os.close(within)
        try:
            status = os.fstat(descriptor)
            self._check_regular(status, relative)
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)

    def read_unsealed(self, relative: str, limit: int) -> bytes:
        """Content of a file that has no digest of its own (`model.json`). Raises TooLarge beyond `limit` bytes."""
        with self.open(relative) as (file, size):
            if size > limit:
                raise TooLarge(f"{relative} has {size} bytes; at most {limit} are allowed")
            return b"".join(_chunks(file, size, relative))

    def digest(self, relative: str) -> File:
        """Size and SHA-256 of a file as it is. Raises what `open` does."""
        digest = hashlib.sha256()
        with self.open(relative) as (file, size):
            for chunk in _chunks(file, size, relative):
                digest.update(chunk)
        return File(sha256="sha256:" + digest.hexdigest(), bytes=size)

    def read(self, relative: str, sealed: File) -> bytes:
        """Content of a file, equal to its digest. Raises what `open` does, WrongSize and WrongDigest."""
        return b"".join(self.stream(relative, sealed))

    def stream(self, relative: str, sealed: File) -> Iterator[bytes]:
        """Content in chunks; the digest is compared after the last one."""
        with self.open(relative) as (file, size):
            _check_size(relative, size, sealed)
            yield from checked(_chunks(file, size, relative), relative, sealed)


def checked(chunks: Iterator[bytes], relative: str, sealed: File) -> Iterator[bytes]:
    """Pass chunks on and compare size and digest. Raises WrongSize as soon as there are too many bytes, WrongDigest."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > sealed.bytes:
            raise WrongSize(f"{relative} is longer than the {sealed.bytes} bytes the manifest says")
        digest.update(chunk)
        yield chunk
    _check_size(relative, size, sealed)
    if "sha256:" + digest.hexdigest() != sealed.sha256:
        raise WrongDigest(f"{relative} is not what was sealed: its SHA-256 differs from the manifest's")


def _check_size(relative: str, size: int, sealed: File) -> None:
    if size != sealed.bytes:
        raise WrongSize(f"{relative} has {size} bytes where the manifest says {sealed.bytes}")


def _chunks(file: int, size: int, relative: str) -> Iterator[bytes]:
    """Exactly `size` bytes; one byte more or less means that someone writes while we read."""
    left = size
    try:
        while left and (chunk := os.read(file, min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
        grown = os.read(file, 1)
    except OSError as error:
        raise StoreUnavailable(f"{relative} cannot be read: {error.strerror}") from error
    if left or grown:
        raise WrongSize(f"{relative} changed while it was read")


def _open(name: str, flags: int, *, shown: str, within: int | None = None) -> int:
    try:
        return os.open(name, flags, dir_fd=within)
    except OSError as error:
        if _is_link(name, within):
            raise LinkedFile(f"{shown} is a symbolic link") from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise MissingFile(f"{shown} is missing") from error
        raise StoreUnavailable(f"{shown} cannot be read: {error.strerror}") from error


def _is_link(name: str, within: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode)
    except OSError:
        return False
