"""Evaluations of models of time series: what a step is judged by, labelled windows, the Numenta benchmark."""

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.evaluate import Plan, evaluate
from deployments.evaluation.record import Evaluation
from deployments.evaluation.series import as_it_came, parts, traced
from deployments.evaluation.series_data import Recorded, stretches
from deployments.evaluation.shown import Found
from model_store.store import Store
from model_store.tabling import Channel, Series
from tests import records

STEPS = 200


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    cuts: dict[str, dict[str, Any]] = {
        "tiny-series": {},
        "hops": {"hop": 2, "merge": "mean"},
        "whole": {"padding": "none", "hop": 3},
        "pair": {"channels": 2, "known": True},
    }
    for name, options in cuts.items():
        records.series(folder, name=name, normalisation="fixed", **options)
    return Store(folder)


def values() -> list[float]:
    """Near zero; for eight steps from the 120th on they are not."""
    series = np.random.default_rng(0).uniform(-0.5, 0.5, STEPS)
    series[120:128] += 4
    found: list[float] = series.tolist()
    return found


def run(store: Store, name: str, plan: Plan) -> tuple[Evaluation, Found]:
    record, found = evaluate(store.open(name), plan, lambda *_: None)
    assert Evaluation.model_validate_json(record.model_dump_json()) == record
    return record, found


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "pump.csv"
    rows = [f"{place},{each},{int(120 <= place < 131)}" for place, each in enumerate(values())]
    path.write_text("\n".join(["timestamp,pressure,label", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def numenta(tmp_path: Path) -> Path:
    (tmp_path / "nab" / "data" / "made").mkdir(parents=True)
    (tmp_path / "nab" / "labels").mkdir()
    windows: dict[str, list[list[str]]] = {}
    for name, series in (("odd", values()), ("flat", [0.0] * STEPS)):
        times = [str(datetime(2026, 1, 1) + timedelta(minutes=5 * place)) for place in range(STEPS)]  # noqa: DTZ001
        rows = [f"{time},{each}" for time, each in zip(times, series, strict=True)]
        (tmp_path / "nab" / "data" / "made" / f"{name}.csv").write_text("\n".join(["timestamp,value", *rows]))
        windows[f"made/{name}.csv"] = [[times[115], times[135]]] if name == "odd" else []
    (tmp_path / "nab" / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    return tmp_path / "nab"


# -- whole evaluations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-series", "hops", "whole"])
def test_a_series_with_labelled_steps(store: Store, labelled: Path, name: str) -> None:
    record, found = run(store, name, Plan(labelled, device="cpu"))
    figures = record.figures
    assert figures["auroc.l2"].value > 0.9
    assert figures["windows_found"].value == 1
    assert figures["false_alarms_per_1000"].value == 0
    assert record.data.groups == {"steps": STEPS, "labelled windows": 1}
    assert {"latency_p50", "throughput_64"} <= figures.keys()
    drawn = {plot.title: plot for plot in record.plots}
    assert drawn["pump.csv: score"].spans == ((120, 130),)
    assert [curve.name for curve in drawn["pump.csv: score"].curves] == ["score", "threshold"]
    assert max(drawn["pump.csv: values"].curves[0].y) == pytest.approx(max(values()), rel=1e-4)
    assert found.sheets[0].rows[0][:4] == ("pump.csv", "200", "1 of 1", "0")


def test_scores_are_those_that_a_session_gives(store: Store, labelled: Path) -> None:
    """Of windows of four, whose score is their mean square."""
    series = values()
    (plot,) = (
        plot
        for plot in run(store, "tiny-series", Plan(labelled, device="cpu"))[0].plots
        if plot.title == "pump.csv: score"
    )
    scores = dict(zip(plot.curves[0].x, plot.curves[0].y, strict=True))
    for step in (30, 121, 150, 199):
        assert scores[step] == pytest.approx(np.mean(np.square(series[step - 3 : step + 1])), rel=1e-3)


def test_the_numenta_benchmark(store: Store, numenta: Path) -> None:
    record, found = run(store, "tiny-series", Plan(numenta, device="cpu"))
    figures = {name: each.value for name, each in record.figures.items()}
    assert next(iter(figures)) == "nab.standard"
    assert 90 < figures["nab.standard"] <= 100
    assert figures["nab_alarms.standard"] == figures["nab_own_alarms.standard"]
    assert {f"nab_gaussian.{each}" for each in ("reward_low_FP_rate", "reward_low_FN_rate")} <= figures.keys()
    assert [row[0] for row in found.sheets[0].rows] == ["made/flat.csv", "made/odd.csv"]
    assert record.data.items == 2


def test_arrays_of_whole_series(store: Store, tmp_path: Path) -> None:
    x = np.zeros((6, 20, 2))
    x[::2, 10:] = 3
    x[1, 3, 0] = np.nan
    np.savez(tmp_path / "x.npz", X=x, y=np.arange(6) % 2 == 0)
    record, _ = run(store, "pair", Plan(tmp_path / "x.npz", device="cpu"))
    assert record.figures["windows_found"].value == 1
    np.savez(tmp_path / "x.npz", X=x)
    assert "alarms.l2" in run(store, "pair", Plan(tmp_path / "x.npz", device="cpu"))[0].figures


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("tiny-series", "timestamp,a,b\n1,2,3", "has no column channel 0, only timestamp, a, b"),
        ("tiny-series", "value\n1\n\n2\nx", "line 4: value is 'x'"),
        ("tiny-series", "value\n1\nnan", r"x.csv, from step 0 on: .* \(input\[0\].series\[1\]\)"),
        ("tiny-series", "timestamp,value\n2,1\n1,1", "Timestamps grow"),
        ("whole", "value\n1\n2", "windows have 4 steps; the series has 2"),
    ],
)
def test_what_cannot_be_read_names_its_place(
    store: Store, name: str, text: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=complaint):
        run(store, name, Plan(tmp_path, device="cpu"))


def test_other_data_is_refused(store: Store, numenta: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="has series of one channel, and the model takes 2"):
        run(store, "pair", Plan(numenta, device="cpu"))
    (numenta / "labels" / "combined_windows.json").write_text("{")
    with pytest.raises(EvaluationError, match="cannot be read as the Numenta benchmark"):
        run(store, "tiny-series", Plan(numenta, device="cpu"))
    np.savez(tmp_path / "x.npz", X=np.zeros((2, 5)))
    with pytest.raises(EvaluationError, match="have 1 channels, and the model takes 2"):
        run(store, "pair", Plan(tmp_path / "x.npz", device="cpu"))
    with pytest.raises(EvaluationError, match=r"neither a .csv nor an .npz file, nor a folder"):
        run(store, "pair", Plan(tmp_path / "nab" / "labels", device="cpu"))


# -- what a step is judged by --------------------------------------------------------------------------------------------


def cut(**options: object) -> Series:
    return Series.model_validate({"channels": (Channel(name="x"),), "window": 5, **options})


@given(
    steps=st.integers(1, 400),
    hop=st.integers(1, 5),
    padding=st.sampled_from(["none", "zero"]),
    merge=st.sampled_from(["first", "mean"]),
)
def test_parts_hold_every_step_once(steps: int, hop: int, padding: str, merge: str) -> None:
    series = cut(hop=hop, padding=padding, merge=merge)
    made = parts(series, steps)
    assert [place for start, end in made for place in range(start, end)] == list(range(steps))
    if merge == "mean":  # one window each
        assert all(end - start <= hop for start, end in made[1:])
    first = 5 if padding == "none" else hop
    assert all((end - first) % hop == 0 for _, end in made[:-1])  # as the windows of the whole series end


def test_a_step_is_known_when_its_window_has_ended() -> None:
    scores = np.array([1.0, 1, 5, 5, 2, 2, 7])
    np.testing.assert_array_equal(as_it_came(scores, cut(hop=1)), scores)
    np.testing.assert_array_equal(as_it_came(scores, cut(hop=2)), [1, 1, 1, 5, 5, 2, 7])
    scores = np.array([3.0, 3, 3, 3, 3, 4, 5])
    np.testing.assert_array_equal(as_it_came(scores, cut(padding="none")), scores)
    short = as_it_came(np.array([3.0, 3]), cut(hop=4))
    np.testing.assert_array_equal(short, [3, 3])


def test_neighbours_of_one_label_are_drawn_together() -> None:
    labels = np.array([0, 0, 0, 1, 1, 0, 0, 0, 0], bool)
    assert stretches(labels, 3).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert Recorded("x", [], labels).windows == [(3, 4)]
    assert Recorded("x", [], ~labels).windows == [(0, 2), (5, 8)]


def test_a_curve_keeps_its_peaks() -> None:
    values_ = np.zeros(10_000)
    values_[4321], values_[77] = 9, -3
    values_[500:800] = math.nan
    curve = traced("x", values_)
    assert len(curve.x) < 400
    assert dict(zip(curve.x, curve.y, strict=True)) | {4321.0: 9.0, 77.0: -3.0} == dict(
        zip(curve.x, curve.y, strict=True)
    )
    assert not any(500 <= each < 800 for each in curve.x if each % 66)
