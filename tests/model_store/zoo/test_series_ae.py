import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deployments.reconstruction.alarms import Watch, watch
from model_store import nab
from model_store.export.draft import Draft
from model_store.tabling import Alarms
from model_store.zoo import series_ae
from model_store.zoo.series_net import Autoencoder, Config
from tests.model_store.zoo.drafted import run_drafted
from tests.model_store.zoo.recipes import published
from tests.model_store.zoo.tiny_fashion import Steps
from tests.model_store.zoo.tiny_rows import check_alone, waves, write_series

BRIEF = series_ae.Recipe(steps=3, batch=4, length=40, pieces=3)
TINY = Config(window=96, past=8, shape=6, apart=8, width=8, latent=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path) -> Autoencoder:
    return series_ae.train(data, Steps(), BRIEF)


@pytest.fixture(scope="module")
def told() -> Steps:
    return Steps()


@pytest.fixture(scope="module")
def drafted(data: Path, model: Autoencoder, told: Steps, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return series_ae.draft(model, data, tmp_path_factory.mktemp("work"), told, BRIEF)


def test_training_tells_every_step_and_is_the_same_again(data: Path, model: Autoencoder) -> None:
    steps = Steps()
    again = series_ae.train(data, steps, BRIEF)
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_only_beginnings_are_learned_from(data: Path) -> None:
    values = waves(400)
    other = values.copy()
    other[60:] += 100
    first, second = (series_ae.fit([each], Steps(), BRIEF, TINY).state_dict() for each in (values, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_it_learns_to_foretell() -> None:
    recipe = series_ae.Recipe(steps=250, batch=8, length=60, pieces=20)
    steps = Steps()
    model = series_ae.fit([waves(800, seed) for seed in range(3)], steps, recipe, TINY)
    assert steps.figures["loss"] < 1
    values = torch.from_numpy((waves(100, 9)[None] - 50) / 7).float()
    with torch.no_grad():
        expected = model.expect(values, torch.ones_like(values))[0]
    assert (expected - values)[:, 10:].abs().mean() < 0.7 * values.abs().mean()


def test_stretches_are_normalised_by_what_came_before() -> None:
    values = waves(300)
    other = values.copy()
    other[200:] *= 50
    first, second = (
        [(piece[:, 0], piece[:, 1]) for piece in pieces]
        for pieces in (
            [np.stack([v, k], 1) for v, k in series_ae.stretches(each, 96)] for each in (values, other)
        )
    )
    covered = 0
    for (own, _), (changed, _) in zip(first, second, strict=True):
        covered += len(own) - 95
        if covered <= 200:
            assert np.array_equal(own, changed)
    assert covered == 300


def test_no_later_value_changes_a_score() -> None:
    torch.manual_seed(0)
    model = Autoencoder(TINY).eval()
    values = waves(200)
    whole = series_ae.scores(model, values)
    for name, found in series_ae.scores(model, values[:150]).items():
        np.testing.assert_allclose(found[:140], whole[name][:140], rtol=1e-4, atol=1e-3)


def test_one_step_at_a_time_is_what_is_served() -> None:
    torch.manual_seed(0)
    model = Autoencoder(TINY).eval()
    values = waves(150)
    found = series_ae.scores(model, values, block=1)
    window = values[150 - 96 :]
    scaled = torch.from_numpy((window - window.mean()) / window.std()).float()[None, :, None]
    with torch.no_grad():
        served = model.reconstruct(scaled, torch.ones_like(scaled))[2:]
    for name, each in zip(series_ae.SCORES, served, strict=True):
        assert found[name][-1] == pytest.approx(each.item(), rel=1e-3, abs=1e-3)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), max_size=30), st.integers(0, 6))
def test_alarms_begin_where_the_servers_do(scores: list[float], cooldown: int) -> None:
    alarms, _ = watch(scores, 0, 1.0, Alarms(cooldown=cooldown), Watch())
    begins = np.flatnonzero(series_ae.alarmed(np.array(scores), 1.0, cooldown)).tolist()
    assert begins == [each.start for each in alarms]


def test_the_benchmark_takes_the_best_threshold(data: Path) -> None:
    series = nab.read(data / series_ae.DATA_FOLDER)
    strange = [np.abs(each.values - 50) for each in series]
    found = series_ae.benchmark(series, strange, np.array([1.0, 30.0, 1000.0]))
    assert {each.threshold for each in found.values()} == {30.0}
    assert found["standard"].value > 80
    assert series_ae.benchmark(series, strange, np.array([1000.0]))["standard"].value == 0


def test_a_draft_says_how_good_the_model_is(drafted: Draft, told: Steps) -> None:
    assert told.seen[-1] == (6, 6)
    assert {"nab.standard", "nab.reward_low_FP_rate", "nab.reward_low_FN_rate"} <= drafted.quality.keys()
    assert drafted.quality["nab.standard"].baseline_name == "windowed Gaussian"


def test_a_draft_is_calibrated_on_other_series(drafted: Draft, model: Autoencoder, data: Path) -> None:
    assert drafted.scoring is not None
    assert drafted.scoring.default == "strangeness"
    stored = np.load(io.BytesIO(drafted.files["calibration/strangeness.npy"]), allow_pickle=False)
    begun = [each.values[:90] for each in nab.read(data / series_ae.DATA_FOLDER)[:: series_ae.HELD]]
    expected = np.concatenate([series_ae.scores(model, each)["strangeness"] for each in begun])
    assert set(stored) <= set(expected)


def test_graphs_compute_what_they_declare(drafted: Draft) -> None:
    assert drafted.series is not None
    assert drafted.series.window == Config.window
    found = run_drafted(drafted.graphs["reconstruct"])
    assert len(found) >= 2


def test_it_is_published_and_rows_are_independent(drafted: Draft, tmp_path: Path) -> None:
    feeds = series_ae.cases()[1]
    check_alone(published(drafted, tmp_path), "reconstruct", feeds)
