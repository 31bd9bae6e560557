"""Every way a folder can differ from its manifest, each refused with its own error."""

import json
import os
import random
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import (
    BrokenGraph,
    ForbiddenOperator,
    InvalidManifest,
    LinkedFile,
    MissingFile,
    OutsidePath,
    PackageError,
    StoreUnavailable,
    TooLarge,
    UnknownSchema,
    UnlistedFile,
    WrongDigest,
    WrongSize,
)
from model_store.files import Folder, checked
from model_store.manifest import File, Manifest, digest_of
from model_store.seal import render, seal
from model_store.verify import Limits, external_path, parse, verify
from tests import packages
from tests.graphs import Sketch


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound package, never changed."""
    return packages.generator(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def package(sealed: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(sealed, tmp_path / "package")


def resealed(package: Path, **changes: Any) -> None:
    """Write a manifest with other fields and a right digest of its own: what an attacker would do."""
    fields = json.loads((package / "model.json").read_bytes()) | changes
    del fields["digest"]
    (package / "model.json").write_bytes(render(fields))


# -- sound ------------------------------------------------------------------------------------------------------------


def test_a_sound_package_is_its_manifest(package: Path) -> None:
    manifest = verify(package)
    assert (manifest.name, manifest.version) == ("tiny-gan", "1")
    assert set(manifest.files) == {"generate.onnx", "generate.inputs.npz", "generate.outputs.npz"}
    assert manifest.digest == digest_of((package / "model.json").read_bytes(), manifest.digest)


def test_sealing_again_gives_the_same_bytes(package: Path) -> None:
    before = (package / "model.json").read_bytes()
    fields = json.loads(before)
    seal(
        package,
        {key: value for key, value in fields.items() if key not in {"schema_version", "files", "digest"}},
    )
    assert (package / "model.json").read_bytes() == before


def test_sealing_says_when(package: Path) -> None:
    fields = verify(package).model_dump(mode="json", exclude={"schema_version", "files", "digest", "created"})
    assert seal(package, fields).created.year >= 2026


def test_sealing_what_is_no_manifest_writes_nothing(package: Path) -> None:
    before = (package / "model.json").read_bytes()
    fields = verify(package).model_dump(mode="json", exclude={"schema_version", "files", "digest"})
    with pytest.raises(InvalidManifest, match=r"model\.json is wrong at task"):
        seal(package, fields | {"task": "divination"})
    with pytest.raises(InvalidManifest, match="no JSON values"):
        seal(package, fields | {"description": object()})
    assert (package / "model.json").read_bytes() == before


def test_sealing_sweeps_what_a_crash_left(package: Path) -> None:
    (package / ".model.json.partial").write_bytes(b"half")
    fields = verify_without(package).model_dump(mode="json", exclude={"schema_version", "files", "digest"})
    assert ".model.json.partial" not in seal(package, fields).files
    verify(package)


def verify_without(package: Path) -> Manifest:
    return parse((package / "model.json").read_bytes())


# -- broken files -----------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def link_softly(path: Path) -> None:
    aside = path.parent.parent / "aside"
    path.rename(aside)
    path.symlink_to(aside)


def link_hard(path: Path) -> None:
    (path.parent.parent / "second name").hardlink_to(path)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        folder = Path.cwd()
        os.chdir(path.parent)  # a socket's path may have 108 characters only
        try:
            made.bind(path.name)
        finally:
            os.chdir(folder)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["generate.onnx", "generate.inputs.npz", "generate.outputs.npz"])
@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (remove, MissingFile, "{} is missing"),
        (truncate, WrongSize, "{} has"),
        (grow, WrongSize, "{} has"),
        (flip, WrongDigest, "{} is not what was sealed"),
        (link_softly, LinkedFile, "'{}' is a symbolic link"),
        (link_hard, LinkedFile, "'{}' is a hard link"),
        (make_pipe, LinkedFile, "'{}' is no regular file"),
        (make_socket, LinkedFile, "'{}' is no regular file"),
        (make_folder, MissingFile, "{} is missing"),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    package: Path, name: str, damage: Callable[[Path], None], error: type[PackageError], says: str
) -> None:
    damage(package / name)
    with pytest.raises(PackageError) as raised:
        verify(package)
    assert type(raised.value) is error
    assert says.format(name) in str(raised.value)
    assert str(package.parent) not in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (remove, MissingFile),
        (truncate, (InvalidManifest, WrongDigest)),
        (grow, InvalidManifest),
        (link_softly, LinkedFile),
        (link_hard, LinkedFile),
        (make_pipe, LinkedFile),
        (make_folder, LinkedFile),
    ],
)
def test_a_damaged_manifest_file_is_refused(
    package: Path, damage: Callable[[Path], None], error: type[PackageError]
) -> None:
    damage(package / "model.json")
    with pytest.raises(error):
        verify(package)


def test_a_folder_that_is_a_link_is_refused(package: Path) -> None:
    (package.parent / "link").symlink_to(package)
    with pytest.raises(LinkedFile, match="link is a symbolic link"):
        verify(package.parent / "link")


def test_a_link_on_the_way_to_a_file_is_refused(tmp_path: Path) -> None:
    package = packages.autoencoder(tmp_path)
    (package / "calibration").rename(tmp_path / "elsewhere")
    (package / "calibration").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinkedFile, match="'calibration' is a symbolic link"):
        verify(package)
    with (
        Folder(package) as opened,
        pytest.raises(LinkedFile, match=r"calibration/l1\.npy is a symbolic link"),
    ):
        opened.read_unsealed("calibration/l1.npy", 1000)


def test_no_folder_is_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="nowhere is missing"):
        verify(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["extra.bin", "sub/extra.bin", ".hidden", "model.json.bak", "a\nb", "\udcff"]
)
def test_a_file_the_manifest_does_not_list_is_refused(package: Path, name: str) -> None:
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_bytes(b"")
    with pytest.raises(UnlistedFile) as raised:
        verify(package)
    assert repr(name) in str(raised.value)
    str(raised.value).encode()


def test_an_unreadable_file_says_so(package: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (package / "generate.onnx").chmod(0)
    with pytest.raises(StoreUnavailable, match=r"generate\.onnx cannot be read: Permission denied"):
        verify(package)


# -- every bit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_any_changed_byte_is_refused(sealed: Path, tmp_path: Path, seed: int) -> None:
    """One bit or a whole byte, anywhere in any file, the manifest included: 8 x 40 places."""
    package = shutil.copytree(sealed, tmp_path / "package")
    drawn = random.Random(seed)
    files = sorted(path for path in package.rglob("*") if path.is_file())
    for _ in range(40):
        path = drawn.choice(files)
        sound = path.read_bytes()
        broken = bytearray(sound)
        at = drawn.randrange(len(broken))
        broken[at] ^= drawn.choice([1 << drawn.randrange(8), drawn.randrange(1, 256)])
        path.write_bytes(broken)
        with pytest.raises(PackageError):
            verify(package)
        path.write_bytes(sound)
    verify(package)


def test_every_single_bit_of_the_manifest_counts(sealed: Path) -> None:
    sound = (sealed / "model.json").read_bytes()
    for at in range(len(sound)):
        for bit in range(8):
            broken = bytearray(sound)
            broken[at] ^= 1 << bit
            with pytest.raises(PackageError):
                parse(bytes(broken))


def test_white_space_and_order_of_a_manifest_count(sealed: Path) -> None:
    raw = (sealed / "model.json").read_bytes()
    for other in (
        raw.replace(b"  ", b"\t"),
        raw.replace(b"\n", b""),
        raw + b" ",
        raw.replace(b"\n", b"\r\n"),
    ):
        with pytest.raises(WrongDigest):
            parse(other)


# -- the manifest itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, "1", True, None, [1], 10**30])
def test_an_unknown_schema_is_seen_before_anything_else(package: Path, version: object) -> None:
    raw = json.dumps({"schema_version": version, "something": "newer"}).encode()
    with pytest.raises(UnknownSchema, match=r"this program reads 1"):
        parse(raw)


def test_a_manifest_without_a_schema_version_is_unknown() -> None:
    with pytest.raises(UnknownSchema, match="schema version None"):
        parse(b"{}")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"model"',
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"schema_version": 1, "schema_version": 1}',
        b'{"schema_version": 1, "files": {"a": 1, "a": 2}}',
        b'{"schema_version": NaN}',
        b'{"schema_version": 1, "x": -Infinity}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"schema_version": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(InvalidManifest) as raised:
        parse(raw)
    assert type(raised.value) is InvalidManifest
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "digest", [None, 7, "", "sha256:", "sha256:" + "0" * 64, "sha256:" + "A" * 64, "x" * 71]
)
def test_a_manifest_without_its_right_digest_is_refused(package: Path, digest: object) -> None:
    fields = json.loads((package / "model.json").read_bytes()) | {"digest": digest}
    with pytest.raises(WrongDigest):
        parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"unknown": 1}, "unknown"),
        ({"name": "Upper"}, "name"),
        ({"name": "../up"}, "name"),
        ({"version": "01"}, "version"),
        ({"version": 1}, "version"),
        ({"task": "divination"}, "task"),
        ({"created": "2026-01-01T00:00:00"}, "created"),
        ({"files": {"../../etc/passwd": {"sha256": "sha256:" + "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {"/etc/passwd": {"sha256": "sha256:" + "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {"a//b": {"sha256": "sha256:" + "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {"a\\b": {"sha256": "sha256:" + "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {}}, "its top level"),
        ({"quality": {"x": {"value": "high", "higher_is_better": True, "data": ""}}}, "quality.x.value"),
    ],
)
def test_a_wrong_field_is_named(package: Path, changes: dict[str, Any], where: str) -> None:
    resealed(package, **changes)
    with pytest.raises(InvalidManifest, match=f"model.json is wrong at {where}"):
        verify(package)


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(manifest_bytes=100), r"model\.json has .* bytes; at most 100"),
        (Limits(files=2), "has 3 files; at most 2"),
        (Limits(bytes=500), "bytes; at most 500"),
        (Limits(graph_bytes=100), r"generate\.onnx has .* bytes; a graph may have 100"),
        (Limits(nodes=3), "more than 3 nodes"),
        (Limits(depth=0), "nested deeper than 0"),
    ],
)
def test_limits_come_before_loading(package: Path, limits: Limits, says: str) -> None:
    with pytest.raises(TooLarge, match=says):
        verify(package, limits)


def test_limits_come_before_hashing(package: Path) -> None:
    """A claim of 17 GB is refused though no such file is there, a wrong size before a wrong digest."""
    files = json.loads((package / "model.json").read_bytes())["files"]
    files["generate.onnx"]["bytes"] = 17 << 30
    resealed(package, files=files)
    with pytest.raises(TooLarge):
        verify(package)


def test_a_folder_full_of_files_is_not_walked_to_its_end(package: Path) -> None:
    for i in range(600):
        (package / f"{i}").touch()
    with pytest.raises(TooLarge, match="more than 512 files and folders"):
        verify(package)


def test_deep_folders_are_not_followed_for_ever(package: Path) -> None:
    inner = package
    for _ in range(150):
        inner = inner / "d"
    inner.mkdir(parents=True)
    with pytest.raises(TooLarge, match="longer than 255 characters"):
        verify(package)


# -- graphs -----------------------------------------------------------------------------------------------------------


def with_graph(package: Path, content: bytes) -> None:
    (package / "generate.onnx").write_bytes(content)
    seal(
        package,
        verify_without(package).model_dump(mode="json", exclude={"schema_version", "files", "digest"}),
    )


def test_a_foreign_operator_is_refused_without_a_session(package: Path) -> None:
    sketch = Sketch()
    sketch("Evil", sketch.input("noise", "float32", "batch"), into=["output"], domain="com.example")
    sketch.output("output", "float32", "batch")
    with_graph(package, sketch.model("evil"))
    with pytest.raises(ForbiddenOperator, match=r"'Evil' of domain 'com\.example' is not allowed"):
        verify(package)


def test_a_truncated_graph_sealed_as_such_is_refused(package: Path) -> None:
    with_graph(package, (package / "generate.onnx").read_bytes()[:-9])
    with pytest.raises(BrokenGraph):
        verify(package)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../up.bin", "a/../../up", "./w.bin", "a\\b", "w\0", "/", "a/"]
)
def test_weights_outside_the_package_are_refused(sealed: Path, location: str) -> None:
    with pytest.raises(OutsidePath, match=r"generate\.onnx keeps weights at .*, outside the package"):
        external_path("generate.onnx", location, verify(sealed))


def test_weights_are_looked_for_beside_the_graph(sealed: Path) -> None:
    manifest = verify(sealed)
    assert external_path("generate.onnx", "generate.inputs.npz", manifest) == "generate.inputs.npz"
    with pytest.raises(MissingFile):
        external_path("graphs/generate.onnx", "generate.inputs.npz", manifest)


# -- reading ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_no_path_reads_outside_the_folder(sealed: Path, path: str) -> None:
    """Whatever the name, what is read lies where `realpath` says it may."""
    with Folder(sealed) as opened:
        try:
            opened.read_unsealed(path, 1 << 20)
        except (PackageError, ValueError):  # ValueError: a null character
            return
    assert Path(os.path.realpath(sealed / path)).is_relative_to(sealed.resolve())


@pytest.mark.parametrize(
    "path", ["..", ".", "", "/", "a/..", "../sealed/model.json", "./model.json", "//etc/passwd", "a//b"]
)
def test_dot_segments_are_no_paths(sealed: Path, path: str) -> None:
    with Folder(sealed) as opened, pytest.raises(OutsidePath, match="leaves the package folder"):
        opened.read_unsealed(path, 1000)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    sealed = File(sha256="sha256:" + "0" * 64, bytes=3)
    with pytest.raises(WrongSize, match="longer than the 3 bytes"):
        list(checked(iter([b"ab", b"cd"]), "w.bin", sealed))
    with pytest.raises(WrongSize, match="has 2 bytes where the manifest says 3"):
        list(checked(iter([b"ab"]), "w.bin", sealed))


def test_what_is_read_is_what_was_sealed_while_someone_swaps_the_file(package: Path) -> None:
    """A thread swaps sound and broken content as fast as it can: a read is refused or sound, never broken."""
    manifest = verify(package)
    path, sealed = package / "generate.onnx", manifest.files["generate.onnx"]
    sound, stop = path.read_bytes(), threading.Event()
    broken = sound[:-1] + bytes([sound[-1] ^ 1])

    def swap() -> None:
        while not stop.is_set():
            for content in (broken, sound):
                aside = package.parent / "aside"
                aside.write_bytes(content)
                aside.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    read = refused = 0
    try:
        while read + refused < 300 or (not (read and refused) and read + refused < 20_000):
            try:
                with Folder(package) as opened:
                    assert opened.read("generate.onnx", sealed) == sound
                read += 1
            except (WrongDigest, WrongSize, MissingFile, LinkedFile):
                refused += 1
    finally:
        stop.set()
        thread.join()


def test_reading_leaves_no_descriptor_open(package: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    verify(package)
    (package / "generate.onnx").unlink()
    with pytest.raises(MissingFile):
        verify(package)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_permissions_of_the_sealed_files_are_left_alone(package: Path) -> None:
    assert stat.S_IMODE((package / "model.json").stat().st_mode) & 0o400
