from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest
from deployments.messages import (
    Alarm,
    Array,
    Calibrate,
    Embed,
    Encode,
    Interpolate,
    Output,
    Reconstruct,
    Score,
    SeriesItem,
    TensorItem,
)
from deployments.studio import Studio
from tests.deployments.conftest import OpenStudio

FLAT = [0.0] * 6


def floats(array: Array | None) -> Any:
    assert array is not None
    return np.frombuffer(array.data, "<f4").reshape(array.shape).tolist()


async def refused(studio: Studio, request: Any) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        await studio.call(request)
    return error.value


async def scored(studio: Studio, model: str, *series: Any, **options: Any) -> tuple[Output, ...]:
    items = tuple(each if isinstance(each, SeriesItem) else SeriesItem(each) for each in series)
    return (await studio.call(Score(model, items, steps=True, **options))).outputs


async def test_each_step_is_judged_by_the_window_that_ends_there(open_recorded: OpenStudio) -> None:
    opened = open_recorded("tiny-series")
    flat, peak = await scored(opened.studio, "tiny-series", FLAT, [0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    assert flat.step_scores == (0,) * 6
    assert peak.step_scores == (0, 0, 4, 4, 4, 4, 0)  # four windows have it
    assert (peak.score, peak.is_anomaly) == (4, True)
    assert peak.p_value == pytest.approx(0.01)
    assert (flat.score, flat.is_anomaly, flat.alarms, flat.session) == (0, False, (), None)
    assert peak.alarms == (Alarm(2, 5, 4, open=False),)
    assert opened.value("items_total", model="tiny-series") == 2


async def test_series_of_any_length_share_a_request(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-series").studio
    alone = [(await scored(studio, "tiny-series", series))[0] for series in ([1.0], [2.0] * 9, [3.0] * 3)]
    together = await scored(studio, "tiny-series", [1.0], [2.0] * 9, [3.0] * 3)
    assert list(together) == alone
    # Before the first value is the first value again.
    assert together[0].step_scores == (1,)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("hops", [2, 8 / 3, 4, 4, 4]),  # windows of the steps 0-1, 0-3, 1-4: their scores are 0, 4, 4
        ("worst", [4, 4, 4, 4, 4]),  # 0, 0-1, ..., 0-3, 1-4: 0, 0, 0, 4, 4
        ("whole", [4, 4, 4, 4, 4]),  # 0-3, 1-4: 4, 4
    ],
)
async def test_windows_that_overlap_are_merged_as_the_manifest_says(
    open_recorded: OpenStudio, model: str, expected: list[float]
) -> None:
    (output,) = await scored(open_recorded(model).studio, model, [0.0, 0.0, 0.0, 4.0, 0.0])
    assert output.step_scores == pytest.approx(expected)


async def test_channels_and_padding_with_zeros(open_recorded: OpenStudio) -> None:
    studio = open_recorded("pair").studio
    (output,) = await scored(studio, "pair", [[1, 5], [3, 5]])
    # The second window is (-1, 1) and constant, with two steps of zeros before it.
    assert output.step_scores == pytest.approx((0, 2 / 8))
    for bad, place in (
        ([1.0, 2.0], "[0]"),
        ([[1, 2], [3]], "[1]"),
        ([[1, 2], 3], "[1]"),
        ([[1, [2]]], "[0][1]"),
    ):
        error = await refused(studio, Score("pair", (SeriesItem(bad),)))
        assert error.param == f"input[0].series{place}"


async def test_constant_series_are_zeros_whatever_their_level(open_recorded: OpenStudio) -> None:
    studio = open_recorded("gaps", "pair").studio
    assert (await scored(studio, "gaps", [1e9] * 5))[0].step_scores == (0,) * 5
    assert (await scored(studio, "pair", [[0.1, 7]] * 5))[0].step_scores == (0,) * 5


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        (SeriesItem([]), ".series", "invalid_value"),
        (SeriesItem([1.0, None]), ".series[1]", "invalid_value"),
        (SeriesItem([1.0, "2"]), ".series[1]", "invalid_type"),
        (SeriesItem([1.0, True]), ".series[1]", "invalid_type"),
        (SeriesItem([1.0, float("nan")]), ".series[1]", "invalid_value"),
        (SeriesItem([1e39]), ".series[0]", "invalid_value"),
        (SeriesItem([1.0, [1.0]]), ".series[1]", "invalid_value"),
        (SeriesItem([1.0, 2.0], [1]), ".timestamps", "invalid_value"),
        (SeriesItem([1.0, 2.0], [1, 1]), ".timestamps[1]", "invalid_value"),
        (SeriesItem([1.0, 2.0], [1, "2020-01-01"]), ".timestamps[1]", "invalid_value"),
        (SeriesItem([1.0], ["yesterday"]), ".timestamps[0]", "invalid_value"),
        (SeriesItem([1.0], [None]), ".timestamps[0]", "invalid_value"),
        (SeriesItem([1.0], ["2020-01-01T00:00:00"], session="?"), ".session", "invalid_session"),
    ],
    ids=str,
)
async def test_what_is_no_series_is_refused_by_its_place(
    open_recorded: OpenStudio, item: SeriesItem, param: str, code: str
) -> None:
    studio = open_recorded("tiny-series").studio
    error = await refused(studio, Score("tiny-series", (SeriesItem(FLAT), item)))
    assert (error.param, error.code) == (f"input[1]{param}", code)
    assert (await scored(studio, "tiny-series", FLAT))[0].score == 0


async def test_what_overflows_in_the_model_is_refused_by_its_series(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-series").studio
    error = await refused(studio, Score("tiny-series", (SeriesItem(FLAT), SeriesItem([0.0, 1e30]))))
    assert (error.param, error.code) == ("input[1]", "not_finite")


async def test_a_window_longer_than_the_series_needs_padding(open_recorded: OpenStudio) -> None:
    studio = open_recorded("whole").studio
    error = await refused(studio, Score("whole", (SeriesItem([1.0] * 3),)))
    assert error.param == "input[0].series"
    assert "4 steps" in error.message


async def test_no_more_windows_than_the_line_takes(open_recorded: OpenStudio, tmp_path: Path) -> None:
    opened = open_recorded("tiny-series", max_waiting=8, max_batch=2, calibrations=str(tmp_path))
    series = (SeriesItem([1.0] * 6), SeriesItem([1.0] * 5))
    error = await refused(opened.studio, Score("tiny-series", series))
    assert (error.code, error.param) == ("too_many_rows", "input[1].series")
    assert "5 windows, and 4 more" in error.message
    assert (
        len((await opened.studio.call(Score("tiny-series", (series[0], SeriesItem([1.0] * 4))))).outputs) == 2
    )
    long = SeriesItem([1.0] * 60_000)
    error = await refused(opened.studio, Calibrate("tiny-series", (long, long), method="quantile"))
    assert (error.code, error.param) == ("too_many_rows", "input[1].series")


async def test_missing_values_where_the_model_takes_them(open_recorded: OpenStudio) -> None:
    studio = open_recorded("gaps").studio
    (output,) = await scored(studio, "gaps", [1.0, None, 3.0])
    # Over the series: mean 2, deviation 1; each window's mean square is over its four places.
    assert output.step_scores == pytest.approx((1 / 4, 1 / 4, 2 / 4))
    (whole,) = (await studio.call(Reconstruct("gaps", (SeriesItem([1.0, None, 3.0]),)))).outputs
    assert floats(whole.array) == [[2], [2], [2]]
    error = await refused(studio, Score("gaps", (SeriesItem([None, None]),)))
    assert error.param == "input[0].series"


async def test_a_reconstruction_has_the_series_length_and_units(open_recorded: OpenStudio) -> None:
    studio = open_recorded("pair").studio
    (output,) = (await studio.call(Reconstruct("pair", (SeriesItem([[1, 5], [3, 7]]),), latent=True))).outputs
    assert floats(output.array) == [[1.5, 5.5], [2, 6]]  # windows' means, themselves averaged
    assert output.error == pytest.approx(0.25)
    assert floats(output.latent) == [0, 0]


async def test_latents_and_embeddings_of_series(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-series").studio
    long, short = (
        await studio.call(Encode("tiny-series", (SeriesItem([2.0] * 7), SeriesItem([4.0]))))
    ).outputs
    assert (floats(long.latent), floats(short.latent)) == ([2], [4])
    (embedding,) = (await studio.call(Embed("tiny-series", (SeriesItem([2.0] * 7),)))).outputs
    assert floats(embedding.array) == [1]
    assert (
        await refused(studio, Encode("tiny-series", (SeriesItem([1.0], session=""),)))
    ).param == "input[0].session"


async def test_a_window_as_a_tensor_is_one_row(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-series").studio
    tensor = TensorItem([[1.0], [1.0], [1.0], [1.0]])
    row, series = (await studio.call(Score("tiny-series", (tensor, SeriesItem([2.0]))))).outputs
    assert (row.score, row.alarms, series.score) == (1, None, 4)
    (output,) = (await studio.call(Reconstruct("tiny-series", (tensor,)))).outputs
    assert floats(output.array) == [[0]] * 4
    error = await refused(studio, Interpolate("tiny-series", SeriesItem([1.0]), [1.0]))
    assert error.code == "task_not_supported"


async def test_alarms_end_late_and_leave_their_successors_out(open_recorded: OpenStudio) -> None:
    studio = open_recorded("calm").studio
    # Threshold 1, released at 0.5, silent for 3 steps. Windows have one step: scores are squares.
    values = [0, 2, 0.8, 0.9, 0, 2, 2, 2, 2, 0]
    stamps = list(range(100, 110))
    (output,) = await scored(studio, "calm", SeriesItem(values, stamps))
    assert output.alarms == (
        Alarm(1, 3, 4, open=False, began=101, ended=103),
        Alarm(7, 8, 4, open=False, began=107, ended=108),
    )
    (higher,) = await scored(studio, "calm", values, threshold=5.0)
    assert higher.alarms == ()


async def test_series_calibrate_by_their_windows(open_recorded: OpenStudio, tmp_path: Path) -> None:
    opened = open_recorded("tiny-series", calibrations=str(tmp_path))
    normal = (SeriesItem([1.0] * 4), SeriesItem([2.0]))
    flaws = (SeriesItem([1.0, 1.0, 6.0]), TensorItem([[4.0]] * 4))
    request = Calibrate("tiny-series", (*normal, *flaws), labels=(False, False, True, True), method="f1")
    (made,) = (await opened.studio.call(request)).calibrations
    # Windows of the normal ones: 1, 1, 1, 1, 4. Of a flaw its worst one: (1 + 1 + 1 + 36) / 4, and 16.
    assert (made.items, made.anomalies, made.threshold, made.f1) == (5, 2, (4 + 9.75) / 2, 1)
    (output,) = await scored(opened.studio, "tiny-series", [2.0], calibration=made.id)
    assert output.p_value == pytest.approx(2 / 6)
    going_on = Calibrate("tiny-series", (SeriesItem([1.0], session=""),), method="quantile")
    assert (await refused(opened.studio, going_on)).param == "input[0].session"


async def test_series_of_both_labels_may_share_windows_but_not_be_the_same(
    open_recorded: OpenStudio, tmp_path: Path
) -> None:
    opened = open_recorded("tiny-series", calibrations=str(tmp_path))
    one, other = SeriesItem([1.0, 1.0]), SeriesItem([1.0, 6.0])
    labels = (False, True)
    await opened.studio.call(Calibrate("tiny-series", (one, other), labels=labels, method="quantile"))
    twice = Calibrate("tiny-series", (one, one), labels=labels, method="quantile")
    error = await refused(opened.studio, twice)
    assert (error.code, error.param) == ("contradictory_labels", "labels[1]")


async def test_false_discoveries_are_of_items_and_not_of_windows(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-series").studio
    error = await refused(studio, Score("tiny-series", (SeriesItem(FLAT),), false_discovery_rate=0.1))
    assert error.param == "false_discovery_rate"
    rows = Score("tiny-series", (TensorItem([[4.0]] * 4), TensorItem([[0.5]] * 4)), false_discovery_rate=0.1)
    assert [each.is_anomaly for each in (await studio.call(rows)).outputs] == [True, False]


# -- sessions ----------------------------------------------------------------------------------------------------------


async def streamed(studio: Studio, model: str, values: list[Any], *lengths: int) -> list[Output]:
    session, outputs = "", []
    for length in lengths:
        chunk, values = values[:length], values[length:]
        (output,) = await scored(studio, model, SeriesItem(chunk, session=session))
        assert output.session
        session = output.session
        outputs.append(output)
    return outputs


@pytest.mark.parametrize("model", ["tiny-series", "pair"])
@pytest.mark.parametrize("lengths", [(12,), (1,) * 12, (5, 1, 6)])
async def test_a_session_scores_each_step_as_the_whole_series_does(
    open_recorded: OpenStudio, model: str, lengths: tuple[int, ...]
) -> None:
    studio = open_recorded(model).studio
    chance = np.random.default_rng(0)
    values = chance.normal(5, 2, (12, 2) if model == "pair" else 12).tolist()
    (whole,) = await scored(studio, model, values)
    parts = await streamed(studio, model, values, *lengths)
    assert [part.start for part in parts] == np.cumsum((0, *lengths[:-1])).tolist()
    steps = [score for part in parts for score in part.step_scores or ()]
    assert steps == pytest.approx(list(whole.step_scores or ()), abs=1e-6)


async def test_a_session_normalises_by_what_has_come(open_recorded: OpenStudio) -> None:
    studio = open_recorded("gaps").studio
    at_once = await streamed(studio, "gaps", [1.0, 3.0, None, 5.0, 4.0], 5)
    one_by_one = await streamed(studio, "gaps", [1.0, 3.0, None, 5.0, 4.0], 1, 1, 2, 1)
    steps = [score for part in one_by_one for score in part.step_scores or ()]
    assert steps == pytest.approx(list(at_once[0].step_scores or ()), abs=1e-6)
    assert steps[1] == pytest.approx(2 / 4)  # of 1 and 3: mean 2, deviation 1


async def test_alarms_go_on_in_a_session(open_recorded: OpenStudio) -> None:
    studio = open_recorded("calm").studio
    parts = await streamed(studio, "calm", [2.0, 3.0, 0.0, 2.0, 2.0, 2.0], 1, 1, 2, 2)
    assert [part.alarms for part in parts] == [
        (Alarm(0, 0, 4, open=True),),
        (Alarm(0, 1, 9, open=True),),
        (Alarm(0, 1, 9, open=False),),
        (Alarm(5, 5, 4, open=True),),
    ]


async def test_a_session_belongs_to_its_model_and_is_checked(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-series", "pair").studio
    (begun,) = await scored(studio, "tiny-series", SeriesItem(FLAT, session=""))
    session = begun.session or ""
    other = await refused(studio, Score("pair", (SeriesItem([[1, 2]], session=session),)))
    assert (other.code, other.param) == ("invalid_session", "input[0].session")
    for damaged in (session[:-4], session[4:], "A" + session[1:], session + "AAAA", "é"):
        error = await refused(studio, Score("tiny-series", (SeriesItem([1.0], session=damaged),)))
        assert error.code == "invalid_session"


async def test_a_session_without_padding_begins_with_a_whole_window(open_recorded: OpenStudio) -> None:
    studio = open_recorded("whole").studio
    (short,) = (SeriesItem([1.0] * 3, session=""),)
    assert (await refused(studio, Score("whole", (short,)))).param == "input[0].series"
    parts = await streamed(studio, "whole", [1.0] * 7, 4, 1, 2)
    assert [part.step_scores for part in parts] == [(1,) * 4, (1,), (1, 1)]
