"""Stores: what is visible when, who wins, what a crash leaves. Local folders and fsspec addresses alike."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model_store.errors import (
    AlreadyPublished,
    InvalidManifest,
    LinkedFile,
    MissingFile,
    PackageError,
    PackageNotFound,
    StoreUnavailable,
    TooLarge,
    UnlistedFile,
)
from model_store.store import Limits, Store, calibrations_beside, shipped
from tests import packages

ROOT = Path(__file__).parents[2]


Opener = Callable[[], Store]


@pytest.fixture(params=["folder", "file url", "memory"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> Opener:
    """Opens the same empty store of each kind again and again; a remote one with its cache in `tmp_path / cache`."""
    url = {"folder": str(tmp_path / "store"), "file url": f"file://{tmp_path}/store", "memory": memory}[
        request.param
    ]
    if request.param != "memory":
        (tmp_path / "store").mkdir()
    return lambda: Store(url, cache=tmp_path / "cache")


# -- every kind of store ----------------------------------------------------------------------------------------------


def test_a_gate_lies_beside_the_versions(opener: Opener, tmp_path: Path) -> None:
    store = opener()
    store.publish(packages.autoencoder(tmp_path / "made"))
    assert store.gate("tiny-ae") is store.gate("no") is store.gate("../made") is None
    files, root = fsspec.core.url_to_fs(store.url)
    files.pipe_file(f"{root}/tiny-ae/gate.yaml", b"figures: {}")
    assert opener().gate("tiny-ae") == b"figures: {}"
    assert opener().versions("tiny-ae") == ["1"]


def test_an_empty_store_has_nothing(opener: Opener) -> None:
    store = opener()
    assert store.names() == []
    assert store.versions("a") == []
    for ask in (store.open, store.manifest):
        with pytest.raises(PackageNotFound, match="there is no package 'a' in the store"):
            ask("a")
        with pytest.raises(PackageNotFound, match="there is no a:3 in the store"):
            ask("a", "3")


def test_versions_are_numbers_and_the_latest_is_the_default(opener: Opener, drafts: dict[str, Path]) -> None:
    for key in ("a10", "b1", "a2", "a1"):
        opener().publish(drafts[key])
    store = opener()
    assert store.names() == ["a", "b"]
    assert store.versions("a") == ["1", "2", "10"]
    assert store.manifest("a").version == "10"
    assert store.open("a").manifest.version == "10"
    assert store.open("a", "2").manifest.version == "2"


def test_what_is_opened_is_what_was_published(opener: Opener, drafts: dict[str, Path]) -> None:
    published = opener().publish(drafts["b1"])
    package = opener().open("b")
    assert package.manifest == published == opener().manifest("b", "1")
    for path in package.manifest.files:
        assert package.read(path) == package.path(path).read_bytes() == (drafts["b1"] / path).read_bytes()


def test_a_package_gives_only_what_it_lists(opener: Opener, drafts: dict[str, Path]) -> None:
    opener().publish(drafts["b1"])
    package = opener().open("b")
    for path in ("model.json", "../1/model.json", "nothing"):
        with pytest.raises(MissingFile, match="is not in the manifest of b"):
            package.path(path)
        with pytest.raises(MissingFile):
            package.read(path)


def test_a_version_never_changes(opener: Opener, drafts: dict[str, Path], tmp_path: Path) -> None:
    first = opener().publish(drafts["a1"])
    other = packages.generator(tmp_path / "other", name="a", version="1", latent=3)
    with pytest.raises(AlreadyPublished, match="a:1 exists, and versions never change"):
        opener().publish(other)
    assert opener().manifest("a") == first
    assert opener().open("a").manifest == first


def test_a_broken_package_is_not_published(opener: Opener, drafts: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(drafts["a1"], tmp_path / "broken")
    (folder / "extra").touch()
    with pytest.raises(UnlistedFile):
        opener().publish(folder)
    assert opener().names() == []


@pytest.mark.parametrize("name", ["", ".", "..", "A", "a/b", "../a", "a\0", ".hidden", "a" * 64, "ä", "*"])
def test_no_name_reaches_outside(opener: Opener, name: str) -> None:
    store = opener()
    assert store.versions(name) == []
    with pytest.raises(PackageNotFound):
        store.open(name)
    with pytest.raises(PackageNotFound):
        store.open(name, "1")


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "latest", "..", "1e3", "9" * 20, "1\n", "../1"])
def test_no_version_reaches_outside(opener: Opener, drafts: dict[str, Path], version: str) -> None:
    opener().publish(drafts["a1"])
    with pytest.raises(PackageNotFound):
        opener().open("a", version)
    with pytest.raises(PackageNotFound):
        opener().manifest("a", version)


def test_limits_hold_in_every_store(opener: Opener, drafts: dict[str, Path], tmp_path: Path) -> None:
    opener().publish(drafts["a1"])
    tight = Store(opener().url, cache=tmp_path / "cache", limits=Limits(files=2))
    for ask in (tight.open, tight.manifest):
        with pytest.raises(TooLarge):
            ask("a")


# -- folders ----------------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="the store cannot be read: No such file"):
        Store(tmp_path / "nowhere").names()


def test_publishing_makes_the_folder(tmp_path: Path, drafts: dict[str, Path]) -> None:
    Store(tmp_path / "new/store").publish(drafts["a1"])
    assert Store(tmp_path / "new/store").names() == ["a"]


@pytest.mark.parametrize("url", ["nosuch://x", "s4://bucket"])
def test_an_address_nobody_understands_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="the store's address is not understood") as raised:
        Store(url)
    assert "\n" not in str(raised.value)


def test_other_things_in_the_folder_are_no_packages(tmp_path: Path, drafts: dict[str, Path]) -> None:
    Store(tmp_path).publish(drafts["a1"])
    (tmp_path / "README.md").write_text("not a package")
    (tmp_path / "Upper/1").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd/latest").mkdir(parents=True)
    (tmp_path / ".git/1").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert Store(tmp_path).names() == ["a"]


def test_a_package_reached_through_a_link_is_refused(tmp_path: Path, drafts: dict[str, Path]) -> None:
    Store(tmp_path).publish(drafts["a1"])
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "a/2").symlink_to(tmp_path / "a/1")
    with pytest.raises(LinkedFile, match="linked is a symbolic link"):
        Store(tmp_path).open("linked", "1")
    with pytest.raises(LinkedFile, match="2 is a symbolic link"):
        Store(tmp_path).open("a", "2")
    assert Store(tmp_path).versions("a") == ["1"]


def test_a_package_under_another_name_is_refused(tmp_path: Path, drafts: dict[str, Path]) -> None:
    """Replaying an old version under a new number is no way round immutability."""
    shutil.copytree(drafts["a1"], tmp_path / "a/7")
    shutil.copytree(drafts["a1"], tmp_path / "c/1")
    for name, version in (("a", "7"), ("c", "1")):
        for ask in (Store(tmp_path).open, Store(tmp_path).manifest):
            with pytest.raises(
                InvalidManifest, match=f"{name}:{version} holds a package that calls itself a:1"
            ):
                ask(name, version)


def test_publishing_leaves_nothing_beside_the_version(tmp_path: Path, drafts: dict[str, Path]) -> None:
    Store(tmp_path).publish(drafts["a1"])
    with pytest.raises(AlreadyPublished):
        Store(tmp_path).publish(drafts["a1"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1"]


def test_one_of_many_publishers_wins(tmp_path: Path, drafts: dict[str, Path]) -> None:
    def publish(_: int) -> bool:
        try:
            Store(tmp_path).publish(drafts["a1"])
        except AlreadyPublished:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(publish, range(16))) == 1
    Store(tmp_path).open("a")


def test_only_the_shipped_store_may_be_linked_from_an_installers_cache(
    tmp_path: Path, drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uv pip install` hard-links every file of a package from its cache; a copy of it has names of its own again."""
    for file in drafts["a1"].iterdir():
        (tmp_path / "installed/a/1" / file.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "installed/a/1" / file.name).write_bytes(file.read_bytes())
        (tmp_path / file.name).hardlink_to(tmp_path / "installed/a/1" / file.name)
    installed = tmp_path / "installed"
    with pytest.raises(LinkedFile):
        Store(installed).open("a")
    monkeypatch.setattr("model_store.store.shipped", lambda: installed)
    package = Store(installed).open("a")
    assert package.read("generate.onnx")
    Store(tmp_path / "copy").publish(package.folder)
    assert Store(tmp_path / "copy").open("a").manifest == package.manifest


def test_the_limits_of_a_store_go_with_its_packages(tmp_path: Path, drafts: dict[str, Path]) -> None:
    limits = Limits(nodes=1000)
    Store(tmp_path, limits=limits).publish(drafts["a1"])
    assert Store(tmp_path, limits=limits).open("a").limits == limits


def test_the_shipped_store_is_a_folder_of_the_package() -> None:
    assert shipped().parts[-2:] == ("model_store", "packages")


# -- crashes ----------------------------------------------------------------------------------------------------------

# Publishes a draft into a store in forked children; child k is killed, or meets a full disk, at its k-th call that
# opens, makes, renames, removes or syncs, until a child gets through unharmed. Prints what each one left.
CRASHES = """
import itertools, json, os, shutil, sys, traceback
from pathlib import Path
from model_store.errors import PackageError
from model_store.store import Store

root, draft, other = map(Path, sys.argv[1:4])
how = sys.argv[4]
EVENTS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.scandir", "os.listdir", "fsync"}
calls = itertools.count(1)
at = 0

def hook(event, _):
    if at and event in EVENTS and next(calls) == at:
        if how == "kill":
            os._exit(9)
        raise OSError(28, "No space left on device")

os.fsync = lambda _: hook("fsync", ())  # counted, not waited for
sys.addaudithook(hook)

def publish():
    try:
        Store(root).publish(draft)
    except PackageError:
        return 3
    except BaseException:
        traceback.print_exc()
        return 4
    return 0 if next(calls) <= at else 1

for k in itertools.count(1):
    child = os.fork()
    if child == 0:
        at = k
        os._exit(publish())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    store = Store(root)
    versions = store.versions("a")
    sound = all(store.open("a", version) for version in versions)
    if len(list(root.iterdir())) > 1:  # something was left behind: the next writer sweeps it
        store.publish(draft) if "2" not in versions else store.publish(other)
        shutil.rmtree(root / "b", ignore_errors=True)
    print(json.dumps([code, versions, sound, sorted(path.name for path in root.iterdir())]))
    if code == 0:
        break
    shutil.rmtree(root / "a" / "2", ignore_errors=True)
"""


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_crash_at_any_call_leaves_the_old_state_or_the_new(
    tmp_path: Path, drafts: dict[str, Path], how: str
) -> None:
    root = tmp_path / "store"
    Store(root).publish(drafts["a1"])
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, root, drafts["a2"], drafts["b1"], how],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) > 40
    for code, versions, sound, left in outcomes:
        assert code in ({0, 9} if how == "kill" else {0, 1, 3}), done.stderr
        assert versions in (["1"], ["1", "2"])
        assert sound
        assert left == ["a"]
    assert outcomes[-1][:2] == [0, ["1", "2"]]
    seen = [versions for _, versions, _, _ in outcomes]
    if how == "kill":  # the rename is the moment: old before it, new after it, and some calls on both sides
        assert seen == sorted(seen)
        assert seen[0] == ["1"]
        assert seen[-2] == ["1", "2"]
    else:
        assert seen.count(["1"]) > 20


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="the store cannot be written: No space left on device"):
            Store(tmp_path).publish(drafts["a1"])
    assert list(tmp_path.iterdir()) == []
    Store(tmp_path).publish(drafts["a1"])


class StoreMachine(RuleBasedStateMachine):
    """A store against a dict: publish, damage, mend and open in any order."""

    folder: Path
    drafts: dict[str, Path]

    @initialize()
    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.model: dict[str, set[str]] = {}
        self.damaged: set[tuple[str, str]] = set()

    @rule(key=st.sampled_from(["a1", "a2", "a10", "b1"]))
    def publish(self, key: str) -> None:
        name, version = key[0], key[1:]
        try:
            Store(self.folder).publish(self.drafts[key])
        except AlreadyPublished:
            assert version in self.model[name]
        else:
            assert version not in self.model.setdefault(name, set())
            self.model[name].add(version)

    @rule(
        key=st.sampled_from(["a1", "a2", "a10", "b1"]), file=st.sampled_from(["generate.onnx", "model.json"])
    )
    def damage(self, key: str, file: str) -> None:
        path = self.folder / key[0] / key[1:] / file
        if path.exists():
            path.write_bytes(path.read_bytes()[:-1])
            self.damaged.add((key[0], key[1:]))

    @rule(junk=st.sampled_from([".adding-a-1", ".adding-discarded", "Junk", "c"]))
    def litter(self, junk: str) -> None:
        (self.folder / junk).mkdir(exist_ok=True)

    @invariant()
    def agrees(self) -> None:
        store = Store(self.folder)
        assert store.names() == sorted(self.model)
        for name, versions in self.model.items():
            assert store.versions(name) == sorted(versions, key=int)
            for version in versions:
                if (name, version) in self.damaged:
                    with pytest.raises(PackageError):
                        store.open(name, version)
                else:
                    assert store.open(name, version).manifest.version == version


def test_a_store_behaves_like_a_dict(tmp_path: Path, drafts: dict[str, Path]) -> None:
    class Machine(StoreMachine):
        folder = tmp_path / "machine"

    Machine.drafts = drafts
    case = Machine.TestCase
    case.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
    case().runTest()


# -- calibrations ------------------------------------------------------------------------------------------------------


def test_calibrations_lie_where_something_may_be_written(tmp_path: Path) -> None:
    own = tmp_path / "store" / ".calibrations"
    assert calibrations_beside(tmp_path / "store") == calibrations_beside(f"file://{tmp_path}/store") == own
    home = Path.home() / ".local/share/atelier/calibrations"
    assert calibrations_beside(shipped()) == home / "shipped"
    one, same, other = map(calibrations_beside, ("memory://a", "memory://a/", "memory://b"))
    assert one == same != other
    assert one.parent == home


def test_calibrations_are_no_package(tmp_path: Path) -> None:
    packages.scorer(tmp_path)
    (tmp_path / ".calibrations" / "tiny-score" / "1").mkdir(parents=True)
    assert Store(tmp_path).names() == ["tiny-score"]
