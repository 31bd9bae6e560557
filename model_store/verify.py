"""Whether a folder is a package: manifest, files, digests, limits, operators. Opens no session and writes nothing.

Cheap checks come first: nothing is hashed before names, sizes and counts are right, nothing parsed before it is hashed.
"""

import json
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from model_store import graph_file
from model_store.errors import (
    InvalidManifest,
    MissingFile,
    OutsidePath,
    TooLarge,
    UnknownSchema,
    UnlistedFile,
    WrongDigest,
    WrongSize,
)
from model_store.files import Folder
from model_store.manifest import SCHEMA_VERSION, Manifest, digest_of

MANIFEST: Final = "model.json"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a package may cost before anything of it is trusted."""

    manifest_bytes: int = 1 << 20
    files: int = 256
    bytes: int = 16 << 30
    graph_bytes: int = (2 << 30) - 1  # protobuf's own limit
    nodes: int = 200_000
    depth: int = 8
    # Off but for the shipped packages: installers (uv) link files from their cache. What is used is what was hashed
    # in either case; a second name is one more way to change a file behind its owner's back.
    hard_links: bool = False


LIMITS: Final = Limits()


def with_links(limits: Limits) -> Limits:
    """The same limits for a folder whose files may have other names: the shipped one, or one to copy from."""
    return replace(limits, hard_links=True)


def verify(folder: Path, limits: Limits = LIMITS) -> Manifest:
    """Check a whole package folder without opening a session. Raises the error that says what is wrong."""
    with Folder(folder, hard_links=limits.hard_links) as opened:
        manifest = parse(opened.read_unsealed(MANIFEST, limits.manifest_bytes), limits)
        _check_listing(opened.listing(limits.files * 2), manifest)
        graphs = {graph.file for graph in manifest.graphs.values()}
        for path, sealed in manifest.files.items():
            if path in graphs:
                check_graph(path, opened.read(path, sealed), manifest, limits)
            else:
                for _ in opened.stream(path, sealed):
                    pass
    return manifest


def parse(raw: bytes, limits: Limits = LIMITS) -> Manifest:
    """Read a manifest and check it against its own digest and the limits.

    Raises InvalidManifest, UnknownSchema, WrongDigest, TooLarge.
    """
    fields = _fields(raw)
    version = fields.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UnknownSchema(
            f"model.json has schema version {version!r:.40}; this program reads {SCHEMA_VERSION}"
        )
    digest = fields.get("digest")
    if not isinstance(digest, str) or digest_of(raw, digest) != digest:
        raise WrongDigest("model.json is not what was sealed: it differs from its own digest")
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its top level"
        raise InvalidManifest(f"model.json is wrong at {where}: {first['msg']}") from error
    _check_limits(manifest, limits)
    return manifest


def check_graph(
    path: str, content: bytes, manifest: Manifest, limits: Limits = LIMITS
) -> graph_file.GraphFile:
    """Check one graph's operators, size and external data. Raises BrokenGraph, ForbiddenOperator, OutsidePath, ..."""
    found = graph_file.read(content, most_nodes=limits.nodes, deepest=limits.depth)
    graph_file.check_operators(found)
    for location in found.external:
        external_path(path, location, manifest)
    return found


def external_path(graph_path: str, location: str, manifest: Manifest) -> str:
    """Package path of a graph's external data. Raises OutsidePath, MissingFile where the manifest does not list it."""
    path = posixpath.join(posixpath.dirname(graph_path), location)
    if {"", ".", ".."} & set(location.split("/")) or "\\" in location or "\0" in location:
        raise OutsidePath(f"{graph_path} keeps weights at {location!r:.80}, outside the package")
    if path not in manifest.files:
        raise MissingFile(f"{graph_path} keeps weights at {location!r:.80}, which the manifest does not list")
    return path


def _fields(raw: bytes) -> dict[str, object]:
    try:
        fields = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"model.json is not JSON: {error!s:.120}") from error
    if not isinstance(fields, dict):
        raise InvalidManifest("model.json is not a JSON object")
    return fields


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _check_limits(manifest: Manifest, limits: Limits) -> None:
    if len(manifest.files) > limits.files:
        raise TooLarge(f"the package has {len(manifest.files)} files; at most {limits.files} are allowed")
    total = sum(sealed.bytes for sealed in manifest.files.values())
    if total > limits.bytes:
        raise TooLarge(f"the package has {total} bytes; at most {limits.bytes} are allowed")
    for graph in manifest.graphs.values():
        size = manifest.files[graph.file].bytes
        if size > limits.graph_bytes:
            raise TooLarge(f"{graph.file} has {size} bytes; a graph may have {limits.graph_bytes}")


def _check_listing(found: dict[str, int], manifest: Manifest) -> None:
    for path in sorted(found.keys() - manifest.files.keys() - {MANIFEST}):
        raise UnlistedFile(f"{path!r} is in the folder but not in the manifest")
    for path, sealed in manifest.files.items():
        if path not in found:
            raise MissingFile(f"{path} is missing")
        if found[path] != sealed.bytes:
            raise WrongSize(f"{path} has {found[path]} bytes where the manifest says {sealed.bytes}")
