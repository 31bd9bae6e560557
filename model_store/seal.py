"""Finishing a package: digests of all its files and a manifest that vouches for them. Writes `model.json`, no more."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from model_store.errors import InvalidManifest
from model_store.files import Folder
from model_store.manifest import SCHEMA_VERSION, Manifest
from model_store.verify import LIMITS, MANIFEST, Limits, parse

_PARTIAL: Final = ".model.json.partial"
_BLANK: Final = "sha256:" + "0" * 64


def seal(folder: Path, fields: Mapping[str, object], limits: Limits = LIMITS) -> Manifest:
    """Write `model.json` for the files in `folder`, atomically. Returns what a reader will see.

    `fields` are the manifest's as JSON values, without `schema_version`, `files` and `digest`; `created` is now where
    it is not given. Raises InvalidManifest (before anything is written), LinkedFile, TooLarge.
    """
    (folder / _PARTIAL).unlink(missing_ok=True)
    with Folder(folder) as opened:
        paths = sorted(opened.listing(limits.files * 2).keys() - {MANIFEST})
        files = {path: opened.digest(path).model_dump() for path in paths}
    raw = render({"created": datetime.now(UTC).replace(microsecond=0), **fields, "files": files})
    manifest = parse(raw, limits)
    write_durably(folder / _PARTIAL, raw)
    (folder / _PARTIAL).replace(folder / MANIFEST)
    sync_folder(folder)
    return manifest


def render(fields: Mapping[str, object]) -> bytes:
    """`model.json` with its digest. Raises InvalidManifest for values that are no JSON."""
    body = {"schema_version": SCHEMA_VERSION, **fields, "digest": _BLANK}
    try:
        blank = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        raise InvalidManifest(f"the manifest's fields are no JSON values: {error}") from error
    digest = "sha256:" + hashlib.sha256(blank).hexdigest()
    before, _, after = blank.rpartition(_BLANK.encode())
    return before + digest.encode() + after


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the folder's entries."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and be its only writer. The kernel frees the lock of a writer that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
