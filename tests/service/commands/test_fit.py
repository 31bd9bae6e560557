"""`atelier fit` from its options to a package that scores."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_store.store import Store
from service.commands.fit import app


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, terminal_width=160)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def saved(folder: Path, count: int = 100) -> str:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((count, 3)) @ generator.standard_normal((3, 5))
    labels = np.arange(count) >= count - 10
    np.savez(
        folder / "data.npz", X=rows + labels[:, None] * generator.standard_normal((count, 5)) * 3, y=labels
    )
    return str(folder / "data.npz")


def test_arrays_become_a_package(tmp_path: Path) -> None:
    store = str(tmp_path / "store")

    status, shown, errors = run(
        "knn", saved(tmp_path), "--name", "near", "-k", "3", "--calibration", "0.3", "--quantile", "0.9",
        "--examples", "50", "--data", "Bearings", "--store", store,
    )  # fmt: skip

    assert (status, errors) == (0, "")
    assert "✓ fit knn to 63 normal items" in shown
    assert "✓ calibrate and measure on 37 held-out items" in shown
    assert re.search(r"score +│ score\.distance", shown)
    assert re.search(r"auroc\.distance ↑ +│ +0\.9|auroc\.distance ↑ +│ +1", shown)
    manifest = Store(store).open("near").manifest
    assert manifest.description == "Mean distance to the 3 nearest of 50 normal items."
    assert manifest.scoring is not None
    assert manifest.scoring.calibrations["distance"].quantile == 0.9
    assert (manifest.provenance.data, manifest.provenance.recipe) == ("Bearings", "atelier fit knn")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("pca", "DATA", "--name", "No"), "'No' is no package name"),
        (("pca", "missing.npz", "--name", "x"), "missing.npz cannot be read"),
        (("pca", "DATA", "--name", "x", "--components", "5"), "5 components: between 1 and 3 can be taken"),
        (("knn", "DATA", "--name", "x", "--feature", "a"), "1 features are named; data.npz has 5 columns"),
        (("knn", "DATA", "--name", "x", "--label", "y"), "--label names a column of a .csv file"),
        (("mahalanobis", "DATA", "--name", "x", "--calibration", "0.05"), "leaves 4"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    path = saved(tmp_path)

    status, _, errors = run(
        *(path if each == "DATA" else each for each in arguments), "--store", str(tmp_path / "s")
    )

    assert status == 1
    assert complaint in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_help_needs_neither_torch_nor_a_runtime() -> None:
    code = "import sys, service.commands.fit; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "onnxruntime", "onnx"} & set(loaded.split())
