from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.text.stops import StopMatcher

# Few letters, so that stops are found, overlap, and begin without ending.
texts = st.text("ab\N{SNOWMAN}", max_size=20)
stops = st.lists(st.text("ab\N{SNOWMAN}", min_size=1, max_size=5), max_size=4)


def naive(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Letter by letter: the first stop that is complete cuts the text where it begins; of two, the longer."""
    for end in range(len(text) + 1):
        cuts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if cuts:
            return text[: min(cuts)], True
    return text, False


def feed(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    sent = ""
    for piece in pieces:
        text, stopped = matcher.feed(piece)
        sent += text
        if stopped:
            assert matcher.flush() == ""
            return sent, True
        assert "".join(pieces).startswith(sent)
        assert not any(stop in sent for stop in stops)
    return sent + matcher.flush(), False


@given(text=texts, stops=stops, cuts=st.lists(st.integers(0, 20)))
def test_however_the_text_is_cut_the_answer_is_the_same(text: str, stops: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert feed(pieces, stops) == naive(text, stops)


@given(text=texts, stops=stops)
def test_no_more_is_held_back_than_could_become_a_stop(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    sent, stopped = matcher.feed(text)
    held = matcher.flush()
    if not stopped:
        assert sent + held == text
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_text_passes_at_once_where_there_is_nothing_to_stop_at() -> None:
    assert StopMatcher(()).feed("anything") == ("anything", False)


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [
        (["ab", "cd"], "ab"),
        (["a", "b", "c", "d"], "ab"),
        (["abc"], "ab"),
        (["xcyc", "c"], "x"),
    ],
)
def test_a_stop_is_found_across_pieces(pieces: list[str], sent: str) -> None:
    assert feed(pieces, ["c"]) == (sent, True)


def test_what_might_begin_a_stop_waits_for_the_next_text() -> None:
    matcher = StopMatcher(["\n\nROMEO"])
    assert matcher.feed("love\n") == ("love", False)
    assert matcher.feed("\nRO") == ("", False)
    assert matcher.feed("SE") == ("\n\nROSE", False)


def test_of_two_stops_the_first_to_be_complete_counts() -> None:
    assert feed(["abcd"], ["abcd", "bc"]) == ("a", True)


def test_of_two_stops_complete_together_the_longer_counts() -> None:
    assert feed(["abcd"], ["cd", "bcd"]) == ("a", True)
