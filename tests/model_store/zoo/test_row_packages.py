"""What the shipped packages of table rows and series promise: measured quality, size, bytes that do not depend on the batch."""

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.messages import SeriesItem
from deployments.reconstruction.windows import Windows
from model_store.session import Session, choose_device, open_graph
from model_store.store import Store, shipped
from model_store.zoo import series_ae, table_ae
from tests.model_store.zoo.tiny_rows import check_alone

NAMES = ("series-ae", "table-ae")
# Points of the way of a pen that wrote normal digits.
DIGITS = np.array(
    [
        [0.47, 1.0, 0.27, 0.81, 0.58, 0.37, 0.26, 0.0, 0.0, 0.23, 0.57, 0.53, 1.0, 0.9, 0.4, 0.98],
        [0.0, 0.89, 0.28, 1.0, 0.42, 0.76, 0.3, 0.45, 0.15, 0.15, 0.38, 0.0, 0.69, 0.02, 1.0, 0.06],
        [0.0, 0.57, 0.32, 0.68, 0.73, 0.9, 1.0, 1.0, 0.76, 0.75, 0.5, 0.51, 0.29, 0.26, 0.16, 0.0],
    ],
    np.float32,
)
STEPS = np.arange(1_000.0)
REGULAR = {
    "constant": np.full(1_000, 7.0),
    "line": 3 - 0.01 * STEPS,
    "sine": np.sin(STEPS / 10),
    "sawtooth": STEPS % 25,
    "square": STEPS // 10 % 2,
}
JUMP = 900


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(shipped())


def opened(store: Store, name: str) -> Session:
    """With its golden outputs replayed."""
    return open_graph(store.open(name), "reconstruct", device=choose_device("cpu"), threads=1)


@pytest.mark.parametrize("name", NAMES)
def test_packages_are_small(store: Store, name: str) -> None:
    assert sum(each.bytes for each in store.manifest(name).files.values()) < 700_000


def test_a_rows_bytes_do_not_depend_on_its_batch(store: Store) -> None:
    known = np.random.default_rng(0).random((8, len(table_ae.FEATURES))) > 0.2
    rows = np.random.default_rng(1).standard_normal(known.shape) * known
    feeds = {"input": rows.astype(np.float32), "known": known.astype(np.float32)}
    check_alone(store.open("table-ae"), "reconstruct", feeds)
    check_alone(store.open("series-ae"), "reconstruct", series_ae.cases()[1])


def test_few_windows_go_into_a_run(store: Store) -> None:
    assert store.manifest("series-ae").graphs["reconstruct"].rows == series_ae.ROWS


def test_the_recipe_of_tables_is_better_than_neighbours(store: Store) -> None:
    found = store.manifest("table-ae").quality
    density = found["adbench_auroc.density"]
    assert density.baseline is not None
    assert density.value >= density.baseline
    for share in (10, 30, 50):
        figure = found[f"imputation_error.{share}"]
        assert figure.baseline is not None
        assert figure.value < figure.baseline


def test_alarms_are_worth_more_than_the_benchmarks_own(store: Store) -> None:
    found = store.manifest("series-ae").quality
    assert found["nab.standard"].value >= 60
    for profile in ("standard", "reward_low_FP_rate", "reward_low_FN_rate"):
        figure = found[f"nab.{profile}"]
        assert figure.baseline is not None
        assert figure.value > figure.baseline + 20


def columns(store: Store, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    table = store.manifest("table-ae").table
    assert table is not None
    mean, deviation = (
        np.array([getattr(each, part) for each in table.features], np.float32)
        for part in ("mean", "deviation")
    )
    return ((rows - mean) / deviation).astype(np.float32)


def test_digits_are_normal_and_mixed_ones_are_not(store: Store) -> None:
    scoring = store.manifest("table-ae").scoring
    assert scoring is not None
    mixed = np.concatenate([DIGITS[:, :8], np.roll(DIGITS, 1, axis=0)[:, 8:]], 1)
    rows = columns(store, np.concatenate([DIGITS, mixed]))
    [scores] = opened(store, "table-ae").run({"input": rows, "known": np.ones_like(rows)}, ["score.density"])
    threshold = scoring.calibrations["density"].threshold
    assert (scores[:3] < threshold).all()
    assert (scores[3:] > threshold).all()


def test_missing_points_are_filled_in(store: Store) -> None:
    rows = columns(store, DIGITS)
    known = np.ones_like(rows)
    known[:, 5:8] = 0
    [filled] = opened(store, "table-ae").run({"input": rows * known, "known": known}, ["reconstruction"])
    away = known == 0
    assert np.abs(filled - rows)[away].mean() < 0.5 * np.abs(rows)[away].mean()


def judged(store: Store, values: NDArray[np.float64], steps: list[int]) -> tuple[NDArray[np.float32], float]:
    """Scores of some steps as they are served, and the threshold."""
    manifest = store.manifest("series-ae")
    assert manifest.series is not None
    assert manifest.scoring is not None
    cut = Windows(manifest.series, "series-ae:1", missing=True).cut(SeriesItem(values.tolist()), "input")
    feeds = {
        role: np.stack([cut.rows[step].feeds[role] for step in steps]).astype(np.float32)
        for role in ("input", "known")
    }
    [scores] = opened(store, "series-ae").run(feeds, ["score.strangeness"])
    return scores, manifest.scoring.calibrations["strangeness"].threshold


@pytest.mark.parametrize("name", REGULAR)
def test_only_what_is_irregular_is_strange(store: Store, name: str) -> None:
    values = REGULAR[name].copy()
    values[JUMP] += 7 * (values.std() or 1.0)
    # Among them those at which a sine without noise once was strange.
    steps = [*range(100, JUMP, 61), 291, 293, 410, 419, 852, JUMP - 1, JUMP]
    scores, threshold = judged(store, values, steps)
    assert (scores[:-1] < threshold).all()
    assert scores[-1] > 2 * threshold
