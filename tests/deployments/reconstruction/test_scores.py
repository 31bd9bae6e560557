import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from deployments.errors import BadRequest
from deployments.messages import Array, Calibrate, Item, Output, Score, TensorItem
from deployments.oneshot import Result, Task
from deployments.pictures import encode, heat
from deployments.reconstruction.calibrated import Calibrated
from deployments.reconstruction.calibrations import Calibrations
from deployments.reconstruction.scores import Scores
from deployments.reconstruction.tasks import Autoencoding
from model_store.manifest import Manifest
from model_store.store import Store
from tests import packages

FLAT = [0.25] * 64


def manifest(store: Path, name: str, **changes: Any) -> Manifest:
    return Store(str(store)).open(name).manifest.model_copy(update=changes)


def scores(of: Manifest) -> Scores:
    normal = np.linspace(0, 0.1, 11, dtype=np.float32)
    own = {"l1": Calibrated(normal, 0.095, id_="tiny-ae:1"), "peak": Calibrated(normal, 0.05)}
    return Scores(of, Autoencoding(of), Calibrations(of, own, None))


@pytest.fixture
def plain(tiny: Path) -> Scores:
    return scores(manifest(tiny, "tiny-ae"))


def tasks(by: Scores, request: Score) -> list[Task]:
    return by.prepare(request, by.choose(request), by.auto)


def finish(by: Scores, request: Score, results: list[Result]) -> tuple[Output, ...]:
    return by.finish(request, by.choose(request), by.auto, results)


def items(*data: Any) -> tuple[Item, ...]:
    return tuple(TensorItem(each) for each in data)


def result(**arrays: Any) -> Result:
    return {name.replace("score_", "score."): np.asarray(value, np.float32) for name, value in arrays.items()}


def refused(act: Any, *args: Any) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        act(*args)
    return error.value


def picture(png: object) -> np.ndarray[Any, Any]:
    assert isinstance(png, bytes)
    return np.asarray(Pillow.open(io.BytesIO(png)))


# -- scoring -----------------------------------------------------------------------------------------------------------


def test_a_score_needs_one_output(plain: Scores) -> None:
    (task,) = tasks(plain, Score("m", items(FLAT)))
    assert (task.graph, task.outputs, task.place) == ("reconstruct", ("score.l1",), 0)
    assert task.feeds["input"].shape == (1, 8, 8)


def test_the_named_score_and_the_map_are_asked_for(plain: Scores) -> None:
    found = tasks(plain, Score("m", items(FLAT, FLAT), score="peak", mask=True))
    assert [task.outputs for task in found] == [("score.peak", "error_map")] * 2
    assert [task.place for task in found] == [0, 1]


def test_scores_are_held_against_the_calibration(plain: Scores) -> None:
    request = Score("m", items(FLAT, FLAT))
    low, high = finish(plain, request, [result(score_l1=0.025), result(score_l1=0.2)])
    assert low.score == pytest.approx(0.025)
    assert (low.threshold, low.is_anomaly) == (0.095, False)
    assert low.normalized == pytest.approx(0.025 / 0.12)
    assert low.p_value == pytest.approx(9 / 12)
    assert high.is_anomaly
    assert high.p_value == pytest.approx(1 / 12)
    assert (high.map, high.mask) == (None, None)


def test_a_score_at_the_threshold_is_normal(plain: Scores) -> None:
    request = Score("m", items(FLAT), threshold=0.25)
    (output,) = finish(plain, request, [result(score_l1=0.25)])
    assert (output.is_anomaly, output.normalized, output.threshold) == (False, 0.5, 0.25)


def test_the_requests_own_threshold_counts(plain: Scores) -> None:
    (output,) = finish(plain, Score("m", items(FLAT), threshold=0.01), [result(score_l1=0.02)])
    assert output.is_anomaly


def test_maps_and_masks_are_pictures_of_the_error(plain: Scores) -> None:
    error = np.zeros((1, 8, 8), np.float32)
    error[0, 0, 0] = 1
    request = Score("m", items(FLAT), map=True, mask=True)
    (output,) = finish(plain, request, [result(score_l1=0.2, error_map=error)])
    mask = picture(output.mask)
    assert mask[0, 0] == 255
    assert mask.sum() == 255
    assert picture(output.map).shape == (8, 8, 3)
    assert picture(output.map)[0, 0].sum() > picture(output.map)[1, 1].sum()


RISING = np.arange(64, dtype=np.float32).reshape(1, 8, 8) / 64


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({}, 0.05),  # the peak's
        ({"threshold": 0.7}, 0.05),  # of another score
        ({"score": "peak"}, 0.05),
        ({"score": "peak", "threshold": 0.7}, 0.7),
        ({"score": "peak", "false_discovery_rate": 0.1}, 0.05),
    ],
)
def test_masks_are_cut_at_the_threshold_of_the_maps_maximum(
    plain: Scores, fields: dict[str, Any], cut: float
) -> None:
    request = Score("m", items(FLAT), mask=True, **fields)
    (output,) = finish(plain, request, [result(score_l1=0.2, score_peak=0.9, error_map=RISING)])
    assert np.array_equal(picture(output.mask) == 255, RISING[0] > cut)


@pytest.mark.parametrize(("threshold", "scale"), [(None, 10.0), (0.25, 2.0), (0.0, 1.0)])
def test_maps_have_the_middle_colour_where_masks_begin(
    plain: Scores, threshold: float | None, scale: float
) -> None:
    request = Score("m", items(FLAT), map=True, score="peak", threshold=threshold)
    (output,) = finish(plain, request, [result(score_peak=0.9, error_map=RISING / 16)])
    assert np.array_equal(picture(output.map), picture(encode(heat(RISING[0] / 16 * scale))))


def test_without_that_score_masks_are_cut_at_half_of_the_range(tiny: Path) -> None:
    of = manifest(tiny, "tiny-ae")
    own = {"l1": Calibrated([0.1], 0.095)}
    by = Scores(of, Autoencoding(of), Calibrations(of, own, None))
    (output,) = finish(by, Score("m", items(FLAT), mask=True), [result(score_l1=0.2, error_map=RISING)])
    assert np.array_equal(picture(output.mask) == 255, RISING[0] > 0.5)


def test_an_unknown_score_is_refused_with_the_known_ones(plain: Scores) -> None:
    error = refused(tasks, plain, Score("m", items(FLAT), score="elbo"))
    assert (error.code, error.param) == ("unknown_score", "score")
    assert "l1, peak" in error.message


def test_the_packages_own_calibration_may_be_named(plain: Scores) -> None:
    assert plain.choose(Score("m", items(FLAT), calibration="tiny-ae:1")).calibrated.id == "tiny-ae:1"
    error = refused(plain.choose, Score("m", items(FLAT), calibration="tiny-ae:2"))
    assert (error.code, error.param) == ("unknown_calibration", "calibration")


def test_a_model_of_tensors_has_maps_of_numbers_only(tiny: Path) -> None:
    by = scores(manifest(tiny, "tiny-ae", image=None))
    assert refused(tasks, by, Score("m", items(FLAT), map=True)).param == "return"
    assert (
        refused(tasks, by, Score("m", items(FLAT), map=True, map_numbers=True, mask=True)).param == "return"
    )
    request = Score("m", items(FLAT), map=True, map_numbers=True)
    assert tasks(by, request)[0].outputs == ("score.l1", "error_map")
    (output,) = finish(by, request, [result(score_l1=0.2, error_map=np.ones((1, 8, 8)))])
    assert isinstance(output.map, Array)
    assert output.map.shape == (1, 8, 8)


def test_a_map_of_numbers_is_the_mean_over_channels(plain: Scores) -> None:
    request = Score("m", items(FLAT), map=True, map_numbers=True)
    error = np.stack([np.zeros((8, 8)), np.ones((8, 8))])
    (output,) = finish(plain, request, [result(score_l1=0.2, error_map=error)])
    assert output.map == Array((8, 8), np.full(64, 0.5, "<f4").tobytes())


def test_a_model_without_noise_takes_no_seed(plain: Scores) -> None:
    assert refused(tasks, plain, Score("m", items(FLAT), seed=1)).param == "seed"


def test_a_rate_of_false_discoveries_judges_all_items_together(plain: Scores) -> None:
    request = Score("m", items(FLAT, FLAT, FLAT), false_discovery_rate=0.2)
    results = [result(score_l1=each) for each in (0.2, 0.05, 0.3)]
    outputs = finish(plain, request, results)
    assert [each.adjusted_p_value for each in outputs] == pytest.approx([1.5 / 12, 7 / 12, 1.5 / 12])
    assert [each.is_anomaly for each in outputs] == [True, False, True]
    strict = Score("m", items(FLAT, FLAT, FLAT), false_discovery_rate=0.1)
    assert not any(each.is_anomaly for each in finish(plain, strict, results))
    both = Score("m", items(FLAT), threshold=1.0, false_discovery_rate=0.1)
    assert refused(plain.choose, both).param == "false_discovery_rate"


# -- samples -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sampled(tmp_path: Path) -> Scores:
    packages.autoencoder(tmp_path, name="tiny-ae", variational=True, samples=4)
    return scores(manifest(tmp_path, "tiny-ae"))


def noises(found: list[Task]) -> list[bytes]:
    return [task.feeds["noise"].tobytes() for task in found]


def test_a_sampled_score_is_so_many_rows_an_item(sampled: Scores) -> None:
    request = Score("m", items(FLAT, FLAT))
    found = tasks(sampled, request)
    assert [task.place for task in found] == list(range(8))
    assert len(set(noises(found))) == 8
    assert noises(tasks(sampled, request)) == noises(found)
    seeded = noises(tasks(sampled, Score("m", items(FLAT, FLAT), seed=0)))
    assert seeded == noises(found)
    assert set(noises(tasks(sampled, Score("m", items(FLAT, FLAT), seed=1)))).isdisjoint(seeded)


def test_a_score_that_is_not_sampled_is_one_row(sampled: Scores) -> None:
    (task,) = tasks(sampled, Score("m", items(FLAT), score="peak"))
    assert not task.feeds["noise"].any()


def test_an_items_samples_are_averaged(sampled: Scores) -> None:
    results = [result(score_l1=each, error_map=np.full((1, 8, 8), each)) for each in (1, 2, 3, 6, 0, 0, 0, 4)]
    first, second = sampled.combined("l1", results)
    assert [float(each["score.l1"]) for each in (first, second)] == [3, 1]
    assert (first["error_map"] == 3).all()
    assert sampled.combined("peak", results) == results


# -- calibrating -------------------------------------------------------------------------------------------------------


def normal(*values: float) -> list[Result]:
    return [result(score_l1=each, latent=[each, -each]) for each in values]


def calibrate(count: int, **fields: Any) -> Calibrate:
    return Calibrate("m", items(*([0.01 * place] * 64 for place in range(count))), **fields)


def test_a_quantile_of_what_is_normal(plain: Scores) -> None:
    request = calibrate(3, labels=(False, True, False), method="quantile", level=0.5)
    kept = plain.calibrated(request, "l1", plain.auto, normal(0.75, 9, 0.25))
    assert (kept.model, kept.version, kept.score, kept.method, kept.level) == (
        "tiny-ae", "1", "l1", "quantile", 0.5,
    )  # fmt: skip
    assert (kept.threshold, kept.scores, kept.anomalies, kept.f1) == (0.5, (0.25, 0.75), 1, None)
    assert kept.latents is not None
    assert kept.latents.mean == (0.5, -0.5)


def test_a_rate_is_a_twentieth_unless_said(plain: Scores) -> None:
    kept = plain.calibrated(calibrate(19), "l1", plain.auto, normal(*range(19)))
    assert (kept.level, kept.threshold) == (0.05, 18)
    error = refused(plain.calibrated, calibrate(18), "l1", plain.auto, normal(*range(18)))
    assert (error.code, error.param) == ("too_few_items", "input")


def test_f1_takes_both(plain: Scores) -> None:
    request = calibrate(4, labels=(False, True, False, True), method="f1")
    kept = plain.calibrated(request, "l1", plain.auto, normal(1, 4, 2, 5))
    assert (kept.threshold, kept.f1, kept.level, kept.anomalies) == (3.0, 1.0, None, 2)


def test_calibrating_computes_latents_where_there_are_any(plain: Scores, tiny: Path) -> None:
    name, found = plain.calibrating(calibrate(2, score="peak"), plain.auto)
    assert (name, found[0].outputs) == ("peak", ("score.peak", "latent"))
    bare = scores(manifest(tiny, "tiny-ae"))
    assert (
        bare.calibrated(calibrate(1, method="quantile"), "l1", bare.auto, [result(score_l1=1)]).latents
        is None
    )


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"labels": (True, False)}, "invalid_value", "labels"),
        ({"labels": (True, True, True)}, "too_few_items", "labels"),
        ({"method": "f1"}, "missing_required_parameter", "labels"),
        ({"method": "f1", "labels": (False, False, False)}, "too_few_items", "labels"),
        ({"score": "vibes"}, "unknown_score", "score"),
    ],
)
def test_what_cannot_become_a_calibration(plain: Scores, fields: Any, code: str, param: str) -> None:
    error = refused(plain.calibrating, calibrate(3, **fields), plain.auto)
    assert (error.code, error.param) == (code, param)


def test_one_item_labelled_twice(plain: Scores) -> None:
    twice = Calibrate("m", items(FLAT, [0.5] * 64, FLAT), labels=(False, True, True))
    error = refused(plain.calibrating, twice, plain.auto)
    assert (error.code, error.param) == ("contradictory_labels", "labels[2]")
    assert "input[0]" in error.message
    assert plain.calibrating(Calibrate("m", items(FLAT, FLAT), labels=(False, False)), plain.auto)


def test_a_score_that_is_not_finite_calibrates_nothing(plain: Scores) -> None:
    assert refused(plain.calibrated, calibrate(2), "l1", plain.auto, normal(1, np.nan)).param == "input[1]"


def test_a_bad_item_names_its_place(plain: Scores) -> None:
    assert refused(tasks, plain, Score("m", items(FLAT, FLAT[:3]))).param == "input[1].tensor.data"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_the_inputs_fault(plain: Scores, bad: float) -> None:
    """Its weights gave the recorded answers when the model was loaded; numbers near the end of float32 overflow."""
    request = Score("m", items(FLAT, FLAT))
    error = refused(finish, plain, request, [result(score_l1=0.1), result(score_l1=bad)])
    assert (error.code, error.param) == ("not_finite", "input[1]")
