"""`atelier evaluate`, `compare` and the gate of `models push`, through the command line's own parser."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.cli import main
from tests import packages, records


def run(*arguments: str | Path) -> Result:
    known = {"ATELIER_STORE": None, "ATELIER_CACHE": None, "COLUMNS": "120"}
    return CliRunner().invoke(main, [str(each) for each in arguments], env=known)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`store` with two versions of tiny-ae, `data.npz`, and `evaluations` of both."""
    place = tmp_path_factory.mktemp("place")
    x = np.random.default_rng(0).uniform(0.1, 0.5, (24, 8, 8)).astype(np.float32)
    x[::3, :3, :3] = 1
    np.savez(place / "data.npz", X=x, y=np.arange(24) % 3 == 0)
    for version in ("1", "2"):
        packages.autoencoder(place / "store", version=version)
        result = evaluate(place, f"tiny-ae:{version}")
        assert result.exit_code == 0, result.output
    return place


def evaluate(place: Path, model: str, *more: str) -> Result:
    options = (
        "--data",
        place / "data.npz",
        "--store",
        place / "store",
        "--out",
        place / "evaluations",
        "--device",
        "cpu",
    )
    return run("evaluate", model, *options, *more)  # fmt: skip


def test_evaluating_shows_and_writes(place: Path) -> None:
    result = evaluate(place, "tiny-ae")
    assert result.exit_code == 0, result.output
    assert "tiny-ae:2 on data.npz, 24 items" in result.stdout
    assert "AUROC (l1)" in result.stdout
    assert "1 to 1" in result.stdout
    folder = place / "evaluations/tiny-ae/2"
    assert f"Wrote {folder / 'evaluation.json'}" in result.stdout
    assert json.loads((folder / "evaluation.json").read_bytes())["figures"]["auroc.l1"]["value"] == 1
    assert (folder / "index.html").read_text().startswith("<!doctype html>")


def test_rows_are_evaluated_by_a_column_of_labels(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records.table(place / "store")
    rows = [f"{48 + step % 3},{950 + 400 * (step % 2)},red,{step % 2}" for step in range(200)]
    data = tmp_path / "rows.csv"
    data.write_text("\n".join(["age,income,colour,broken", *rows]))
    options = ("--data", data, "--store", place / "store", "--out", tmp_path, "--device", "cpu")
    result = run("evaluate", "tiny-table", *options, "--label", "broken")
    assert result.exit_code == 0, result.output
    assert "imputation error (30 % hidden)" in result.stdout
    assert "What scores are of" in (tmp_path / "tiny-table/1/index.html").read_text()
    assert not caplog.records  # half of the rows are anomalies, which is no drift
    refused = run("evaluate", "tiny-table", *options, "--label", "odd")
    assert refused.exit_code == 1
    assert "rows.csv has no column odd, only age, income, colour, broken" in refused.output


def test_comparing_shows_what_differs(place: Path, tmp_path: Path) -> None:
    file = place / "evaluations/tiny-ae/1/evaluation.json"
    result = run(
        "compare", "tiny-ae", file, "--evaluations", place / "evaluations", "--page", tmp_path / "c.html"
    )
    assert result.exit_code == 0, result.output
    assert "tiny-ae:2" in result.stdout
    assert "+0 to +0" in result.stdout
    assert "A tiny-ae:2 on data.npz" in result.stdout
    assert "unpaired" in result.stdout  # the speeds
    assert "on the same items" in (tmp_path / "c.html").read_text()


def test_comparing_with_a_gate_that_is_not_passed_fails(place: Path, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "figures: {auroc.l1: {tolerance: 0}, reconstruction_psnr: {at_least: 200}}"
    )
    result = run(
        "compare",
        "tiny-ae:2",
        "tiny-ae:1",
        "--evaluations",
        place / "evaluations",
        "--gate",
        tmp_path / "gate.yaml",
    )
    assert result.exit_code == 1
    assert "✗ reconstruction_psnr is 100, and must be at least 200" in result.stdout


def test_pushing_through_a_gate(place: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate.yaml"
    gate.write_text("figures: {auroc.l1: {tolerance: 0.01}}")

    def push(version: str) -> Result:
        options = ("--from", place / "store", "--to", tmp_path / "there", "--gate", gate)
        return run(
            "models", "push", f"tiny-ae:{version}", *options, "--evaluations", tmp_path / "evaluations"
        )

    refused = push("1")
    assert refused.exit_code == 1
    assert "there is no evaluation of tiny-ae:1" in refused.stderr
    for version, auroc in (("1", 1.0), ("2", 0.9)):
        record = json.loads((place / f"evaluations/tiny-ae/{version}/evaluation.json").read_bytes())
        record["figures"]["auroc.l1"]["value"] = auroc
        folder = tmp_path / f"evaluations/tiny-ae/{version}"
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(record))
    assert push("1").exit_code == 0  # nothing is there to be worse than
    refused = push("2")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "✗ tiny-ae:2 does not pass the gate: auroc.l1 is 0.9, worse than the 1 of version 1 by more than 0.01\n"
    )
    assert not (tmp_path / "there/tiny-ae/2").exists()
    gate.write_text("figures: {auroc.l1: {tolerance: 0.2}}")
    assert push("2").exit_code == 0


def test_a_store_may_have_a_gate_of_its_own(place: Path, tmp_path: Path) -> None:
    (tmp_path / "there/tiny-ae").mkdir(parents=True)
    gate = tmp_path / "there/tiny-ae/gate.yaml"
    options = ("--from", place / "store", "--to", tmp_path / "there", "--evaluations", place / "evaluations")
    for rules, said in (
        (
            "figures: {auroc.l1: {at_least: 2}}",
            "does not pass the gate: auroc.l1 is 1, and must be at least 2",
        ),
        ("figures: {}", f"the gate of tiny-ae in {tmp_path / 'there'} is wrong at figures"),
    ):
        gate.write_text(rules)
        refused = run("models", "push", "tiny-ae:2", *options)
        assert refused.exit_code == 1
        assert said in refused.stderr
    gate.write_text("figures: {auroc.l1: {at_least: 1}}")
    assert run("models", "push", "tiny-ae:2", *options).exit_code == 0


def test_an_evaluation_of_another_package_does_not_count(place: Path, tmp_path: Path) -> None:
    packages.autoencoder(tmp_path / "store", version="2", size=4)
    (tmp_path / "gate.yaml").write_text("figures: {auroc.l1: {at_least: 0.5}}")
    options = ("--from", tmp_path / "store", "--to", tmp_path / "there", "--gate", tmp_path / "gate.yaml")
    result = run("models", "push", "tiny-ae:2", *options, "--evaluations", place / "evaluations")
    assert result.exit_code == 1
    assert "the evaluation of tiny-ae:2 is of another package" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "no", "no"), "there is no evaluation of no in evaluations: run `atelier evaluate no --data ...`"),
        (("compare", "../x", "no"), "there is no evaluation of ../x"),
        (("compare", "no.json", "no"), "no.json cannot be read: No such file or directory"),
        (("evaluate", "no", "--data", "x"), "there is no package 'no' in the store"),
        (("evaluate", "fashion-ae", "--data", "nowhere"), "there is no nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"✗ {said}")
    assert result.stderr.count("\n") == 1


def test_the_extra_is_named_where_it_is_missing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "deployments.evaluation.evaluate", raising=False)
    monkeypatch.setitem(sys.modules, "deployments.evaluation.items", None)
    monkeypatch.setattr("service.commands.evaluate._EXTRA", frozenset({"deployments"}))
    result = evaluate(place, "tiny-ae")
    assert result.exit_code == 1
    assert "pip install 'atelier[evaluate]'" in result.stderr
