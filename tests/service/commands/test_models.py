"""`atelier models` against real stores, through the command line's own parser."""

import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console
from typer.testing import CliRunner, Result

from model_store.manifest import Manifest
from model_store.seal import seal
from model_store.store import Store
from model_store.tabling import Number, Table
from service.commands.card import card
from service.commands.models import app
from tests import packages, records


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store nobody changes: tiny-ae, tiny-attention, tiny-gan, tiny-text, tiny-vae, and tiny-gan in version 2."""
    folder = packages.store(tmp_path_factory.mktemp("sound"))
    packages.generator(folder, version="2")
    return folder


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(sound, tmp_path / "store")


def run(*arguments: str | Path, **environment: str) -> Result:
    known = {"ATELIER_STORE": None, "ATELIER_CACHE": None, "COLUMNS": "120", **environment}
    return CliRunner().invoke(app, [str(each) for each in arguments], env=known)


def refused(result: Result, sentence: str) -> None:
    """One sentence on stderr, exit code 1, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.stderr == f"✗ {sentence}\n"


# -- list -------------------------------------------------------------------------------------------------------------


def test_list_shows_every_model_once(sound: Path) -> None:
    result = run("list", "--store", sound)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip().startswith("tiny")}
    assert list(rows) == ["tiny-ae", "tiny-attention", "tiny-gan", "tiny-text", "tiny-vae"]
    assert "1, 2" in rows["tiny-gan"]
    assert "transformer" in rows["tiny-attention"]
    assert "accuracy 1 ↑" in rows["tiny-text"]


def test_the_store_comes_from_the_settings_too(sound: Path) -> None:
    assert run("list", ATELIER_STORE=str(sound)).stdout == run("list", "--store", sound).stdout


def test_a_broken_manifest_is_a_row_and_an_error(store: Path) -> None:
    (store / "tiny-ae/1/model.json").write_text("{}")
    result = run("list", "--store", store)
    refused(result, "broken: tiny-ae")
    assert "✗ model.json has schema version None; this program reads 1" in result.stdout
    assert "tiny-vae" in result.stdout


def test_an_empty_or_missing_store_is_a_sentence(tmp_path: Path) -> None:
    refused(run("list", "--store", tmp_path), "the store holds no packages")
    refused(run("verify", "--store", tmp_path), "the store holds no packages")
    refused(run("list", "--store", tmp_path / "no"), "the store cannot be read: No such file or directory")
    refused(
        run("list", "--store", "nosuch://x"),
        "the store's address is not understood: Protocol not known: nosuch",
    )


def test_a_wrong_setting_is_a_sentence(sound: Path) -> None:
    result = run("list", "--store", sound, ATELIER_DEVICE="abacus")
    assert result.exit_code == 1
    assert result.stderr.startswith("✗ ATELIER_DEVICE: ")


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_tells_everything(sound: Path) -> None:
    result = run("show", "tiny-vae", "--store", sound)
    assert result.exit_code == 0, result.output
    manifest = Store(sound).manifest("tiny-vae")
    for expected in (
        "tiny-vae:1 A tiny package for tests",
        "reconstruction (vae)",
        "Graph reconstruct",
        "Graph decode",
        "[batch, 1, 8, 8]",
        "accuracy",
        "CC0-1.0",
        manifest.digest,
        "8 files",
        *manifest.files,
    ):
        assert expected in result.stdout


def test_show_tells_of_one_layers_state(tmp_path: Path) -> None:
    place = packages.text(tmp_path, attention=True)
    fields = json.loads((place / "model.json").read_bytes())
    inputs = fields["graphs"]["step"]["inputs"]
    [key] = [each for each in inputs if each["role"] == "past_key_values.0.key"]
    inputs.append({**key, "role": "past_key_values.1.key", "name": "later"})
    shown = Console(file=StringIO(), width=100)
    shown.print(card(Manifest.model_validate_json(json.dumps(fields))))
    assert isinstance(shown.file, StringIO)
    assert shown.file.getvalue().count("in each layer") == 4
    assert "later" not in shown.file.getvalue()


def test_show_tells_of_features_and_windows(tmp_path: Path) -> None:
    records.table(tmp_path, unknown=True)
    records.series(tmp_path, window=1024, hop=2)
    records.series(tmp_path, name="each-step")
    said, cut, other = (
        " ".join(run("show", name, "--store", tmp_path).stdout.split())
        for name in ("tiny-table", "tiny-series", "each-step")
    )
    assert "age in years (0 to 120), income, colour (red, green, blue, or another)" in said
    assert "series channel 0; a window of 1,024 steps for every 2 steps" in cut
    assert "a window of 4 steps for each step" in other


@pytest.mark.parametrize(
    ("ends", "said"),
    [({"minimum": 1.5}, "age (at least 1.5)"), ({"maximum": 2}, "age (at most 2)"), ({}, "age")],
)
def test_show_tells_of_one_end(tmp_path: Path, ends: dict[str, float], said: str) -> None:
    manifest = Manifest.model_validate_json((records.table(tmp_path) / "model.json").read_bytes())
    features = (Number(kind="number", name="age", **ends),)  # type: ignore[arg-type]
    shown = Console(file=StringIO(), width=100)
    shown.print(card(manifest.model_copy(update={"table": Table(features=features)})))
    assert isinstance(shown.file, StringIO)
    assert f"features    {said} " in shown.file.getvalue()


def test_show_names_adapters_as_requests_do(tmp_path: Path) -> None:
    packages.text(tmp_path, adapters=("legal", "medical"))
    assert "tiny-text:legal, tiny-text:medical" in run("show", "tiny-text", "--store", tmp_path).stdout


@pytest.mark.parametrize(
    ("quantization", "said"),
    [
        (
            {"bits": 4, "block": 128, "kl": 0.0278, "limit": 0.5},
            "4 bits in blocks of 128: KL 0.028 from float32, at most 0.5",
        ),
        (
            {"bits": 16, "cosine_distance": 1e-5, "limit": 0.001},
            "16 bits: 1 - cosine 1e-05 from float32, at most 0.001",
        ),
    ],
)
def test_show_tells_what_rounding_cost(tmp_path: Path, quantization: dict[str, Any], said: str) -> None:
    place = packages.text(tmp_path)
    fields = json.loads((place / "model.json").read_bytes()) | {"quantization": quantization}
    shown = Console(file=StringIO(), width=120)
    shown.print(card(Manifest.model_validate_json(json.dumps(fields))))
    assert isinstance(shown.file, StringIO)
    assert said in shown.file.getvalue()


def test_show_tells_how_scores_are_calibrated_and_figures_measured(tmp_path: Path) -> None:
    place = packages.autoencoder(tmp_path, variational=True, samples=3)
    figure = {"value": 0.9, "higher_is_better": True, "data": "test data", "note": "beside 5-NN 0.8"}
    fields = json.loads((place / "model.json").read_bytes()) | {"quality": {"a": figure, "b": figure}}
    shown = Console(file=StringIO(), width=120)
    shown.print(card(Manifest.model_validate_json(json.dumps(fields))))
    assert isinstance(shown.file, StringIO)
    text = shown.file.getvalue()
    assert "l1 (default)" in text
    assert text.count("each the mean of 3 draws") == 1
    assert text.count("a, b: beside 5-NN 0.8") == 1


def test_show_takes_a_version(sound: Path) -> None:
    assert "tiny-gan:2" in run("show", "tiny-gan", "--store", sound).stdout
    assert "tiny-gan:1" in run("show", "tiny-gan:1", "--store", sound).stdout


def test_show_as_json_is_the_manifest(sound: Path) -> None:
    result = run("show", "tiny-gan:1", "--json", "--store", sound)
    assert json.loads(result.stdout) == Store(sound).manifest("tiny-gan", "1").model_dump(mode="json")


@pytest.mark.parametrize("name", ["nope", "tiny-gan:9", "tiny-gan:", "tiny-gan:latest", "../up", "[red]x"])
def test_showing_what_is_not_there_is_a_sentence(sound: Path, name: str) -> None:
    result = run("show", name, "--store", sound)
    assert result.exit_code == 1
    assert result.stderr.startswith("✗ there is no ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


# -- verify -----------------------------------------------------------------------------------------------------------


def test_verify_replays_every_version(sound: Path) -> None:
    result = run("verify", "--store", sound)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("✓ tiny-") and "replayed" in line for line in lines)
    assert any("tiny-ae:1 8 files, " in line and "2 graphs replayed" in line for line in lines)


def test_verify_goes_on_after_a_broken_package(store: Path) -> None:
    (store / "tiny-ae/1/extra").touch()
    weights = store / "tiny-gan/2/generate.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    result = run("verify", "--store", store)
    refused(result, "2 of 6 packages are broken")
    assert "✗ tiny-ae:1 'extra' is in the folder but not in the manifest" in result.stdout
    assert "✗ tiny-gan:2 generate.onnx is not what was sealed" in result.stdout
    assert result.stdout.count("✓") == 4


def test_verify_takes_names(sound: Path) -> None:
    result = run("verify", "tiny-gan:1", "tiny-text", "--store", sound)
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["tiny-gan:1", "tiny-text:1"]


def test_an_unknown_device_is_refused_before_anything_is_verified(sound: Path) -> None:
    result = run("verify", "--device", "abacus", "--store", sound)
    refused(result, "the device must be auto, cpu, cuda or cuda:<n>, not 'abacus'")
    assert not result.stdout


# -- pull and push ----------------------------------------------------------------------------------------------------


def test_push_and_pull_bring_the_same_package_back(sound: Path, tmp_path: Path) -> None:
    MemoryFileSystem.store.clear()
    cache = str(tmp_path / "cache")
    pushed = run(
        "push", "tiny-gan", "tiny-ae:1", "--from", sound, "--to", "memory://there", ATELIER_CACHE=cache
    )
    assert pushed.exit_code == 0, pushed.output
    assert pushed.stdout.splitlines()[0].startswith("✓ tiny-gan:2 (")
    assert pushed.stdout.splitlines()[1].endswith("added to memory://there")
    pulled = run(
        "pull", "tiny-gan", "--from", "memory://there", "--to", tmp_path / "here", ATELIER_CACHE=cache
    )
    assert pulled.exit_code == 0, pulled.output
    assert Store(tmp_path / "here").open("tiny-gan").manifest == Store(sound).manifest("tiny-gan")
    MemoryFileSystem.store.clear()


def test_doing_it_again_changes_nothing_and_says_so(sound: Path, tmp_path: Path) -> None:
    for expected in ("added to", "is already in"):
        result = run("push", "tiny-gan", "--from", sound, "--to", tmp_path)
        assert result.exit_code == 0
        assert expected in result.stdout


def test_another_package_under_the_same_version_is_refused(sound: Path, tmp_path: Path) -> None:
    packages.generator(tmp_path, version="2", latent=3)
    result = run("push", "tiny-gan", "--from", sound, "--to", tmp_path)
    refused(result, "tiny-gan:2 exists, and versions never change")


def test_pull_needs_to_know_where_to(sound: Path, tmp_path: Path) -> None:
    refused(run("pull", "tiny-gan", "--from", sound), "say where to put the packages: --to, or ATELIER_STORE")
    result = run("pull", "tiny-gan", "--from", sound, ATELIER_STORE=str(tmp_path / "here"))
    assert result.exit_code == 0, result.output
    assert Store(tmp_path / "here").names() == ["tiny-gan"]


def test_a_broken_package_is_not_copied(store: Path, tmp_path: Path) -> None:
    (store / "tiny-gan/2/generate.onnx").unlink()
    refused(run("push", "tiny-gan", "--from", store, "--to", tmp_path / "there"), "generate.onnx is missing")
    assert not (tmp_path / "there").exists()


# -- the command as a whole -------------------------------------------------------------------------------------------


def test_every_command_has_help() -> None:
    for command in ("list", "show", "verify", "pull", "push"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout


def test_a_manifest_cannot_command_the_terminal(tmp_path: Path) -> None:
    place = packages.generator(tmp_path)
    fields = json.loads((place / "model.json").read_bytes())
    for name in ("schema_version", "files", "digest"):
        del fields[name]
    seal(place, fields | {"description": "\x1b]0;owned\x07 [red]loud[/] \x1b[2J"})
    shown = run("show", "tiny-gan", "--store", tmp_path).stdout
    assert "\x1b" not in shown
    assert "·]0;owned· [red]loud[/] ·[2J" in shown


def test_listing_imports_neither_onnx_runtime_nor_ray_nor_torch(sound: Path) -> None:
    program = (
        "import sys; from service.cli import main\n"
        f"try: main(['models', 'list', '--store', {str(sound)!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'onnxruntime', 'ray', 'torch', 'onnx', 'fastapi'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.splitlines()[-1] == "[]"
