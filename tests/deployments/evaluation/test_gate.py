from pathlib import Path

import pytest

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.gate import Gate, broken, read_gate
from tests.service.evaluation.records import figure, record

GATE = Gate.model_validate(
    {"figures": {"auroc": {"tolerance": 0.01, "at_least": 0.8}, "latency": {"at_most": 5, "tolerance": 1}}}
)


def at(auroc: float, latency: float = 3.0, **fields: str) -> object:
    return record({"auroc": figure(auroc), "latency": figure(latency, better=False)}, **fields)


@pytest.mark.parametrize(
    ("auroc", "latency", "reasons"),
    [
        (0.9, 3.0, []),
        (0.895, 3.9, []),  # within the tolerances
        (0.99, 1.0, []),
        (0.85, 3.0, ["auroc is 0.85, worse than the 0.9 of version 1 by more than 0.01"]),
        (0.9, 4.5, ["latency is 4.5, worse than the 3 of version 1 by more than 1"]),
        (0.9, 5.5, ["latency is 5.5, and must be at most 5", "latency is 5.5, worse than the 3 of version 1 by more than 1"]),
    ],
)  # fmt: skip
def test_a_version_may_not_be_worse_by_more_than_the_tolerance(
    auroc: float, latency: float, reasons: list[str]
) -> None:
    assert broken(GATE, at(auroc, latency, version="2"), at(0.9)) == reasons  # type: ignore[arg-type]


def test_the_first_version_has_bounds_alone() -> None:
    assert broken(GATE, at(0.81, 4.9), None) == []  # type: ignore[arg-type]
    assert broken(GATE, at(0.7), None) == ["auroc is 0.7, and must be at least 0.8"]  # type: ignore[arg-type]


def test_what_cannot_be_compared_does_not_pass() -> None:
    assert broken(GATE, at(0.9), at(0.9, data="1")) == ["measured on other data than version 1"]  # type: ignore[arg-type]
    assert broken(GATE, record({}), at(0.9)) == ["auroc was not measured", "latency was not measured"]  # type: ignore[arg-type]
    assert "auroc was not measured for version 1" in broken(GATE, at(0.9), record({}))  # type: ignore[arg-type]
    neither = record({"auroc": figure(0.9, better=None), "latency": figure(3.0, better=False)})
    assert broken(GATE, neither, neither) == ["auroc has no better and no worse"]


def test_bounds_hold_on_any_data() -> None:
    gate = Gate.model_validate({"figures": {"auroc": {"at_least": 0.8}}})
    assert broken(gate, at(0.9), at(0.99, data="1")) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("figures: {auroc: {tolerance: -1}}", "wrong at figures.auroc.tolerance"),
        ("figures: {auroc: {}}", "say at_least, at_most or tolerance"),
        ("figures: {}", "wrong at figures"),
        ("figures: {auroc: {below: 1}}", "wrong at figures.auroc.below"),
        ("a: [", "is not valid YAML"),
        ("", "wrong at its top level"),
    ],
)
def test_a_wrong_gate_is_a_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "gate.yaml").write_text(content)
    with pytest.raises(EvaluationError, match=said):
        read_gate(tmp_path / "gate.yaml")
