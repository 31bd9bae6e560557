import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import BadRequest
from deployments.items import ReadItem
from deployments.messages import SeriesItem
from deployments.reconstruction.alarms import Watch, watch
from deployments.reconstruction.sessions import beginning, read, written
from deployments.reconstruction.windows import Windows
from model_store.tabling import Alarms, Channel, Series

values = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=30).filter(
    lambda each: each[0] is not None
)
kinds = st.sampled_from(["fixed", "window", "series"])


def windows(**fields: Any) -> Windows:
    return Windows(Series(channels=(Channel(name="a"),), **fields), "model:1", missing=True)


@given(values, kinds, st.integers(1, 6), st.sampled_from(["zero", "edge"]), st.data())
def test_however_a_stream_is_cut_its_windows_are_the_same(
    steps: list[Any], kind: str, window: int, padding: str, data: st.DataObject
) -> None:
    own = windows(window=window, normalisation=kind, padding=padding)
    at_once = own.cut(SeriesItem(steps, session=""), "p").rows
    rows: list[ReadItem] = []
    session, left = "", list(steps)
    while left:
        length = data.draw(st.integers(1, len(left)))
        chunk, left = left[:length], left[length:]
        cut = own.cut(SeriesItem(chunk, session=session), "p")
        session = written(cut.after, "model:1")
        rows += cut.rows
    for one, other in zip(at_once, rows, strict=True):
        assert (one.feeds["known"] == other.feeds["known"]).all()
        np.testing.assert_allclose(one.feeds["input"], other.feeds["input"], rtol=1e-3, atol=1e-3)


@given(
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from(["first", "mean", "max"]),
    st.sampled_from(["none", "edge"]),
)
def test_every_step_has_a_score_between_those_of_its_windows(
    steps: int, window: int, hop: int, merge: Literal["first", "mean", "max"], padding: str
) -> None:
    own = windows(window=window, hop=min(hop, window), merge=merge, padding=padding)
    if padding == "none" and steps < window:
        return
    cut = own.cut(SeriesItem([1.0] * steps), "p")
    assert cut.ends[-1] == steps
    scores = [float(place) for place in range(len(cut.ends))]
    for step, merged in enumerate(own.merged(cut, scores)):
        holding = [score for end, score in zip(cut.ends, scores, strict=True) if end - window <= step < end]
        chosen = {"first": min(holding), "max": max(holding), "mean": float(np.mean(holding))}
        assert merged == pytest.approx(chosen[merge])


@given(values, kinds, st.integers(1, 6), st.integers(1, 6))
def test_windows_rebuild_the_series_that_they_are_of(
    steps: list[Any], kind: str, window: int, hop: int
) -> None:
    own = windows(window=window, hop=min(hop, window), normalisation=kind)
    cut = own.cut(SeriesItem(steps), "p")
    rebuilt = own.rebuilt(cut, [row.feeds["input"] for row in cut.rows])[:, 0]
    sent = np.array([math.nan if each is None else each for each in steps])
    known = ~np.isnan(sent)
    scale = 1 + np.abs(sent[known]).max()
    np.testing.assert_allclose(rebuilt[known] / scale, sent[known] / scale, atol=1e-5)


@given(st.text(max_size=200))
def test_no_other_text_is_a_session(text: str) -> None:
    with pytest.raises(BadRequest) as error:
        read(text, "model:1", 1, 4, "input[0].session")
    assert (error.value.code, error.value.param) == ("invalid_session", "input[0].session")


def test_a_session_is_of_one_shape() -> None:
    text = written(beginning(2), "model:1")
    assert read(text, "model:1", 2, 4, "p").seen == 0
    with pytest.raises(BadRequest):
        read(text, "model:1", 3, 4, "p")


@given(
    st.lists(st.integers(0, 10).map(float), max_size=40),
    st.integers(0, 40),
    st.sampled_from([0.0, 0.5]),
    st.integers(0, 4),
)
def test_alarms_are_the_same_however_steps_come(
    scores: list[float], first: int, hysteresis: float, cooldown: int
) -> None:
    policy = Alarms(hysteresis=hysteresis, cooldown=cooldown)
    whole, end = watch(scores, 0, 5.0, policy, Watch())
    early, between = watch(scores[:first], 0, 5.0, policy, Watch())
    late, other_end = watch(scores[first:], len(scores[:first]), 5.0, policy, between)
    assert end == other_end
    assert [alarm for alarm in early if not alarm.open] + late == whole or not scores[first:]
    for alarm in whole:
        assert alarm.peak == max(scores[alarm.start : alarm.end + 1]) > 5
        assert min(scores[alarm.start : alarm.end + 1]) > 5 * (1 - hysteresis)
    for before, after in pairwise(whole):
        assert after.start > before.end + cooldown
