"""Table rows, series and calibrations of them, over real HTTP, through the gateway and directly, and after a restart."""

from pathlib import Path
from typing import Any

import pytest
import requests

from tests import records
from tests.e2e.conftest import Service, end, start

PATHS = ["", "/studio"]
POOR = {"features": {"age": 48, "income": 450.0, "colour": "red"}}


def row(income: float) -> dict[str, Any]:
    return {"features": {"age": 48, "income": income, "colour": "red"}}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    records.table(tmp_path)
    records.series(tmp_path, normalisation="fixed")
    return tmp_path


def post(service: Service, route: str, model: str, path: str = "", **fields: Any) -> Any:
    answer = requests.post(f"{service.url}{path}/v1/{route}", json={"model": model, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def scored(service: Service, path: str, by: tuple[str, str]) -> None:
    """Both models by what was uploaded for them."""
    table, series = by
    body = post(
        service,
        "anomalies",
        "tiny-table",
        path,
        input=[row(450.0), row(950.0)],
        **{"return": ["contributions"]},
    )
    poor, normal = body["data"]
    assert (body["calibration"], body["method"]) == (table, "f1")
    assert (poor["is_anomaly"], normal["is_anomaly"]) == (True, False)
    assert poor["contributions"]["income"] == max(poor["contributions"].values())
    item = {"series": [0.0, 0.0, 3.0, 0.0], "session": ""}
    body = post(service, "anomalies", "tiny-series", path, input=[item], **{"return": ["steps"]})
    (judged,) = body["data"]
    assert (body["calibration"], judged["is_anomaly"], judged["alarms"]) == (series, False, [])
    assert judged["steps"] == {"start": 0, "scores": [0.0, 0.0, 2.25, 2.25]}
    more = {"series": [9.0], "session": judged["session"]}
    (judged,) = post(service, "anomalies", "tiny-series", path, input=[more])["data"]
    assert judged["alarms"] == [{"start": 4, "end": 4, "peak": 22.5, "open": True}]


def test_uploaded_calibrations_survive_a_restart(store: Path, folder: Path) -> None:
    first = start(folder, "--store", str(store))
    try:
        rows = [*(row(income) for income in range(800, 1100, 50)), POOR]
        labels = [False] * 6 + [True]
        table = post(
            first,
            "anomalies/calibrations",
            "tiny-table",
            input=rows,
            labels=labels,
            method="f1",
            default=True,
        )
        windows = [{"series": [0.5 * level] * 4} for level in range(7)]
        series = post(
            first, "anomalies/calibrations", "tiny-series", input=windows, method="quantile", default=True
        )
        assert (table["items"], table["anomalies"], series["items"]) == (6, 1, 28)
        for path in PATHS:
            scored(first, path, (table["id"], series["id"]))
    finally:
        end(first)
    again = start(folder, "--store", str(store))
    try:
        for path in PATHS:
            scored(again, path, (table["id"], series["id"]))
        listed = requests.get(f"{again.url}/v1/anomalies/calibrations?model=tiny-table", timeout=10).json()
        assert [(each["id"], each["default"]) for each in listed["data"]] == [
            ("tiny-table:1", False), (table["id"], True),
        ]  # fmt: skip
        (imputed,) = post(
            again, "reconstructions", "tiny-table", input=[{"features": {"income": 950.0, "colour": "red"}}]
        )["data"]
        assert imputed["imputed"]["age"]["spread"] >= 3
    finally:
        end(again)
