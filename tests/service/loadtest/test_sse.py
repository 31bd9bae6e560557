from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loadtest.sse import EventReader


def read(chunks: Iterable[bytes]) -> list[bytes]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


def cut(whole: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


payloads = st.lists(
    st.binary(min_size=1, max_size=20).filter(lambda data: not set(data) & set(b"\r\n")),
    min_size=1,
    max_size=8,
)
newlines = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(payloads=payloads, newline=newlines, places=st.lists(st.integers(0, 1000)))
def test_no_cut_changes_the_events(payloads: list[bytes], newline: bytes, places: list[int]) -> None:
    whole = b"".join(b"data: " + payload + newline * 2 for payload in payloads)
    assert read(cut(whole, places)) == payloads


@given(payloads=payloads, newline=newlines)
def test_one_byte_at_a_time(payloads: list[bytes], newline: bytes) -> None:
    whole = b"".join(b"data: " + payload + newline * 2 for payload in payloads)
    assert read(bytes([byte]) for byte in whole) == payloads


@given(lines=payloads, newline=newlines, places=st.lists(st.integers(0, 1000)))
def test_data_lines_of_one_event_are_joined(lines: list[bytes], newline: bytes, places: list[int]) -> None:
    whole = b"".join(b"data: " + line + newline for line in lines) + newline
    assert read(cut(whole, places)) == [b"\n".join(lines)]


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (b": keep-alive\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\ndata: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_lines_that_are_no_data(sent: bytes, events: list[bytes]) -> None:
    assert read([sent]) == events


def test_an_event_is_seen_with_its_blank_line_not_with_the_next_chunk() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\r\n") == []
    assert reader.feed(b"\r") == [b"a"]
    assert reader.feed(b"\ndata: b\r\n\r\n") == [b"b"]
