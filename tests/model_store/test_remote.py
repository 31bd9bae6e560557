"""Stores at fsspec addresses: complete or invisible, verified before the cache has it, fetched once."""

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from model_store.errors import (
    AlreadyPublished,
    InvalidManifest,
    MissingFile,
    PackageError,
    PackageNotFound,
    StoreUnavailable,
    TooLarge,
    WrongDigest,
    WrongSize,
)
from model_store.store import Store
from tests import packages


class Remote:
    """A remote store with its own cache, and a hand on the files behind it."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url, self.cache = url, cache
        self.files: Any = fsspec.filesystem("memory")
        self.root = "/shelf/models"

    @property
    def store(self) -> Store:
        return Store(self.url, cache=self.cache)

    def cached(self, *parts: str) -> Path:
        (entry,) = self.cache.iterdir()
        return entry.joinpath(*parts)


@pytest.fixture
def remote(memory: str, tmp_path: Path, drafts: dict[str, Path]) -> Remote:
    """A remote store with `a:1`."""
    made = Remote(memory, tmp_path / "cache")
    made.store.publish(drafts["a1"])
    return made


def test_the_manifest_is_uploaded_last(
    memory: str, drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While anything is missing, nothing is there."""
    files, order = fsspec.filesystem("memory"), []
    sound_open, sound_pipe = MemoryFileSystem.open, MemoryFileSystem.pipe_file

    def watch_open(self: Any, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode == "wb":
            order.append(path.rsplit("/", 1)[-1])
            assert Store(memory).names() == []
        return sound_open(self, path, mode, **more)

    def watch_pipe(self: Any, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> Any:
        order.append(path.rsplit("/", 1)[-1])
        assert mode == "create"
        return sound_pipe(self, path, value, mode=mode, **more)

    monkeypatch.setattr(MemoryFileSystem, "open", watch_open)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", watch_pipe)
    Store(memory).publish(drafts["a1"])
    assert order.index("model.json") == len(order.copy()) - 1 - order[::-1].index("model.json")
    assert set(order[: order.index("model.json")]) == {
        "generate.onnx",
        "generate.inputs.npz",
        "generate.outputs.npz",
    }
    assert files.exists("/shelf/models/a/1/model.json")


def test_an_upload_that_breaks_off_is_invisible_and_can_be_repeated(
    memory: str, drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "pipe_file", fail)
        with pytest.raises(StoreUnavailable, match="the store cannot be reached: Connection reset by peer"):
            Store(memory).publish(drafts["a1"])
    assert Store(memory).names() == []
    Store(memory).publish(drafts["a1"])
    assert Store(memory).names() == ["a"]


def test_of_two_uploads_at_once_one_wins(
    remote: Remote, drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one looked before the first one was through."""
    exists, looks = MemoryFileSystem.exists, iter([False])

    def look(self: Any, path: str, **more: Any) -> bool:
        return next(looks, True) and bool(exists(self, path, **more))

    monkeypatch.setattr(MemoryFileSystem, "exists", look)
    with pytest.raises(AlreadyPublished):
        remote.store.publish(drafts["a1"])


def test_a_package_is_fetched_once(remote: Remote) -> None:
    package = remote.store.open("a", "1")
    assert package.folder == remote.cached("a", "1")
    remote.files.rm(remote.root, recursive=True)
    assert remote.store.open("a", "1").manifest == package.manifest
    assert [path.name for path in remote.cached().iterdir()] == ["a"]


def test_two_addresses_do_not_share_a_cache(remote: Remote, tmp_path: Path) -> None:
    packages.generator(tmp_path / "other", name="a", version="1", latent=3)
    other = Store("memory://other", cache=remote.cache)
    other.publish(tmp_path / "other/a/1")
    assert other.open("a", "1").manifest != remote.store.open("a", "1").manifest


@pytest.mark.parametrize("damage", ["flip", "remove", "extra", "link", "folder"])
def test_a_damaged_cache_entry_is_fetched_again(remote: Remote, damage: str) -> None:
    sound = remote.store.open("a", "1").manifest
    file = remote.cached("a", "1", "generate.onnx")
    match damage:
        case "flip":
            file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
        case "remove":
            file.unlink()
        case "extra":
            (file.parent / "extra").touch()
        case "link":
            (file.parent / "second").hardlink_to(file)
        case "folder":
            shutil.rmtree(file.parent)
            file.parent.write_text("not a folder")
    assert remote.store.open("a", "1").manifest == sound
    assert remote.store.open("a", "1").read("generate.onnx")


def test_a_damaged_cache_entry_without_its_source_is_refused(remote: Remote) -> None:
    remote.store.open("a", "1")
    remote.cached("a", "1", "generate.onnx").write_bytes(b"")
    remote.files.rm(remote.root, recursive=True)
    with pytest.raises(PackageNotFound):
        remote.store.open("a", "1")


def overwrite(remote: Remote, name: str, content: bytes) -> None:
    remote.files.pipe_file(f"{remote.root}/a/1/{name}", content)


def read(remote: Remote, name: str) -> bytes:
    content: bytes = remote.files.cat_file(f"{remote.root}/a/1/{name}")
    return content


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda remote: overwrite(remote, "generate.onnx", read(remote, "generate.onnx")[:-1]), WrongSize),
        (
            lambda remote: overwrite(remote, "generate.onnx", read(remote, "generate.onnx") + b"x" * 99),
            WrongSize,
        ),
        (
            lambda remote: overwrite(remote, "generate.onnx", read(remote, "generate.onnx")[:-1] + b"!"),
            WrongDigest,
        ),
        (lambda remote: remote.files.rm(f"{remote.root}/a/1/generate.onnx"), MissingFile),
        (lambda remote: overwrite(remote, "model.json", read(remote, "model.json") + b" "), WrongDigest),
        (lambda remote: overwrite(remote, "model.json", b" " * (2 << 20)), TooLarge),
        (lambda remote: overwrite(remote, "model.json", b"{}"), InvalidManifest),
    ],
)
def test_what_arrives_damaged_never_reaches_the_cache(
    remote: Remote, damage: Callable[[Remote], None], error: type[PackageError]
) -> None:
    damage(remote)
    with pytest.raises(error):
        remote.store.open("a", "1")
    assert not any(path.is_file() for path in remote.cache.rglob("*"))


def test_a_remote_package_under_another_name_is_refused(remote: Remote) -> None:
    remote.files.copy(f"{remote.root}/a/1", f"{remote.root}/a/7", recursive=True)
    with pytest.raises(InvalidManifest, match="a:7 holds a package that calls itself a:1"):
        remote.store.open("a")


def test_what_is_no_package_is_not_listed(remote: Remote) -> None:
    for path in (
        "Upper/1/model.json",
        "c/latest/model.json",
        "c/1/deep/model.json",
        "model.json",
        "c/2/graph.onnx",
    ):
        remote.files.makedirs(f"{remote.root}/{path}".rsplit("/", 1)[0], exist_ok=True)
        remote.files.pipe_file(f"{remote.root}/{path}", b"{}")
    assert remote.store.names() == ["a"]
    assert remote.store.versions("c") == []


def test_many_replicas_fetch_a_package_at_once(remote: Remote) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: remote.store.open("a", "1").read("generate.onnx"), range(16)))
    assert len(set(opened)) == 1


def test_an_address_that_does_not_answer_is_one_sentence(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(MemoryFileSystem, "find", fail)
    monkeypatch.setattr(MemoryFileSystem, "open", fail)
    for ask in (remote.store.names, lambda: remote.store.open("a"), lambda: remote.store.manifest("a", "1")):
        with pytest.raises(StoreUnavailable, match="the store cannot be reached: TimeoutError"):
            ask()


def test_a_cache_that_cannot_be_written_says_so(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="the store cannot be written"):
        Store(remote.url, cache=tmp_path / "file").open("a", "1")


def test_without_a_cache_folder_packages_are_kept_below_the_home(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert Store(remote.url).open("a", "1").folder.is_relative_to(tmp_path / "home/.cache/atelier/packages")
