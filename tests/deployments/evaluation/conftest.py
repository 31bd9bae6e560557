"""Whole evaluations that take no time over speed."""

import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("speed", "called"):
        monkeypatch.setattr(f"deployments.evaluation.{module}._SECONDS", 0.01)
    monkeypatch.setattr("deployments.evaluation.overlap._REPLICATES", 5)
