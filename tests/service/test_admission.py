import asyncio
import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from deployments.errors import BadRequest, Cancelled
from service.admission import MAX_CONTAINERS, MAX_DEPTH, MAX_MEMBERS, parse, read_body, time_limit
from service.call import Call
from service.errors import SlowBody, TooLarge, UnsupportedMedia
from service.settings import Settings
from tests.service.wire import JSON, Exchange


def call_of(exchange: Exchange) -> Call:
    return Call(exchange.scope(), exchange.receive, exchange.send)


async def read(exchange: Exchange, settings: Settings) -> dict[str, Any]:
    return parse(await read_body(call_of(exchange), settings))


def refused(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(body)
    return caught.value


# -- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b'Application/JSON;charset="UTF-8"',
        b"application/json;",
    ],
)
async def test_json_by_any_spelling(content_type: bytes, settings: Settings) -> None:
    exchange = Exchange("/", [b"{}"], headers=[(b"content-type", content_type)])
    assert await read(exchange, settings) == {}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [JSON, (b"content-encoding", b"gzip")],
        [JSON, (b"content-encoding", b"br")],
    ],
)
async def test_what_is_not_plain_json_is_not_read(
    headers: list[tuple[bytes, bytes]], settings: Settings
) -> None:
    exchange = Exchange("/", [b"{}"], headers=headers)
    with pytest.raises(UnsupportedMedia):
        await read(exchange, settings)
    assert exchange.received == 0


async def test_identity_is_no_encoding(settings: Settings) -> None:
    exchange = Exchange("/", [b"{}"], headers=[JSON, (b"content-encoding", b"Identity")])
    assert await read(exchange, settings) == {}


@pytest.mark.parametrize("length", [b"2097153", b"9" * 15, b"9" * 4000])
async def test_a_body_that_says_it_is_too_large_is_not_read(length: bytes, settings: Settings) -> None:
    exchange = Exchange("/", [b"{}"], headers=[JSON, (b"content-length", length)])
    with pytest.raises(TooLarge):
        await read(exchange, settings)
    assert exchange.received == 0


@pytest.mark.parametrize("length", [b"-1", b"1.5", b"", b"0x10", "²".encode()])
async def test_a_length_that_is_no_number(length: bytes, settings: Settings) -> None:
    with pytest.raises(BadRequest):
        await read(Exchange("/", [b"{}"], headers=[JSON, (b"content-length", length)]), settings)


# -- arrival ---------------------------------------------------------------------------------------------------------


async def test_pieces_are_put_together(settings: Settings) -> None:
    assert await read(Exchange("/", [b'{"mo', b"", b'del":', b' "poet"}']), settings) == {"model": "poet"}


async def test_a_body_that_grows_too_large_is_given_up(settings: Settings) -> None:
    exchange = Exchange("/", [b" " * 1024 * 1024] * 40)
    with pytest.raises(TooLarge):
        await read(exchange, settings)
    assert exchange.received == 3


async def test_a_single_piece_that_is_too_large() -> None:
    with pytest.raises(TooLarge):
        await read(Exchange("/", [b" " * 11]), Settings(max_body_bytes=10))


async def test_a_body_in_too_many_pieces() -> None:
    exchange = Exchange("/", [b" "] * 1000)
    with pytest.raises(SlowBody):
        await read(exchange, Settings(max_body_messages=100))
    assert exchange.received == 101


async def test_a_body_that_does_not_arrive(settings: Settings) -> None:
    began = time.monotonic()
    with pytest.raises(SlowBody):
        await read(Exchange("/", [b"{", b'"'], more=True), settings)
    assert time.monotonic() - began < 10


async def test_a_client_that_leaves_while_it_sends(settings: Settings) -> None:
    exchange = Exchange("/", [b"{"], more=True)
    exchange.leave()
    with pytest.raises(Cancelled):
        await read(exchange, settings)


# -- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":-1e400}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        b'{"a":"\n"}',
        b'{"a":01}',
        b"// comment\n{}",
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    assert refused(body).code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true"])
def test_the_body_is_an_object(body: bytes) -> None:
    assert refused(body).code == "invalid_type"


def test_nul_and_emoji_are_text() -> None:
    assert parse(b'{"a":"\\u0000\\ud83d\\ude00"}') == {"a": "\x00\N{GRINNING FACE}"}


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An object in which the deepest value stands at this depth; the object itself is the first level."""
    return b'{"a":' + opening * (depth - 1) + closing * (depth - 1) + b"}"


@pytest.mark.parametrize("depth", [2, 50, MAX_DEPTH])
def test_deep_enough(depth: int) -> None:
    assert "a" in parse(nested(depth))
    mixed = b'{"a":' + b'[{"b":' * ((depth - 1) // 2) + b"1" + b"}]" * ((depth - 1) // 2) + b"}"
    assert "a" in parse(mixed)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 5_000, 1_000_000])
def test_too_deep_is_told_quickly(depth: int) -> None:
    began = time.process_time()
    assert refused(nested(depth)).code == "invalid_json"
    assert time.process_time() - began < 0.5


def test_objects_count_as_levels() -> None:
    body = b'{"a":' * MAX_DEPTH + b"[]" + b"}" * MAX_DEPTH
    assert refused(body).code == "invalid_json"


def test_brackets_in_strings_are_no_levels() -> None:
    text = "[{" * 500 + '\\"' + "]" * 3
    assert parse(orjson.dumps({"prompt": text, "rows": [[1]] * 60})) == {"prompt": text, "rows": [[1]] * 60}


def test_many_rows_are_not_deep() -> None:
    rows = [[[0.5] * 4] * 28] * 20
    assert parse(orjson.dumps({"data": rows})) == {"data": rows}


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"model":"a","n":1,"model":"a"}', "model"),
        (b'{"a":{"b":1,"b":2}}', "b"),
        (b'{"a":[{"b":1},{"c":1,"c":1}]}', "c"),
        (b'{"a":[1,{"c":1,"c":1}]}', "c"),
        (b'{"a":[[],[{"c":1,"c":1}]]}', "c"),
        (b'{"a":":","\\u0061":2}', "a"),
        (b'{"a":1,"\\u0061":2}', "a"),
    ],
)
def test_a_key_given_twice(body: bytes, key: str) -> None:
    error = refused(body)
    assert (error.code, error.param) == ("duplicate_key", key)


def test_a_duplicate_in_a_large_body_is_found_but_not_named() -> None:
    error = refused(b'{"a":"' + b"x" * 100_000 + b'","b":1,"b":2}')
    assert (error.code, error.param) == ("duplicate_key", None)


@pytest.mark.parametrize("text", ["::::", 'a":"b', "\\", '{"a":1,"a":2}', '\\":', "data:image/png;base64,"])
def test_colons_in_strings_are_no_keys(text: str) -> None:
    assert parse(orjson.dumps({"prompt": text, "stop": [text]})) == {"prompt": text, "stop": [text]}


def test_a_body_of_too_many_members() -> None:
    body = orjson.dumps({str(i): i for i in range(MAX_MEMBERS + 1)})
    assert refused(body).code == "invalid_json"
    assert len(parse(orjson.dumps({str(i): i for i in range(MAX_MEMBERS)}))) == MAX_MEMBERS


def test_too_many_lists_are_refused_before_they_are_made() -> None:
    body = b'{"a":[' + b",".join([b"[]"] * (MAX_CONTAINERS + 1)) + b"]}"
    began = time.process_time()
    assert refused(body).code == "invalid_json"
    assert time.process_time() - began < 0.5
    assert parse(orjson.dumps({"prompt": "[" * (MAX_CONTAINERS + 1)}))["prompt"][0] == "["


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | st.text('ab:"\\[]{},\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab:{", max_size=2), inner, max_size=4)
    ),
    max_leaves=20,
)


@examples(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=3), values))
def test_what_is_good_json_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert parse(orjson.dumps(value)) == value
    assert parse(json.dumps(value, indent=1).encode()) == value


@examples(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text("ab:", min_size=1, max_size=2), values), max_size=5))
def test_a_duplicate_is_found_wherever_it_stands(members: list[tuple[str, Any]]) -> None:
    written = b",".join(orjson.dumps(key) + b":" + orjson.dumps(value) for key, value in members)
    body = b'{"list":[1,{' + written + b"}]}"
    keys = [key for key, _ in members]
    if len(keys) == len(set(keys)):
        assert parse(body) == {"list": [1, dict(members)]}
    else:
        assert refused(body).code == "duplicate_key"


# -- time ------------------------------------------------------------------------------------------------------------


def limit(header: bytes | None, timeout_seconds: float | None) -> float:
    headers = [JSON] if header is None else [JSON, (b"x-request-timeout", header)]
    return time_limit(
        call_of(Exchange("/", headers=headers)), timeout_seconds, Settings(request_timeout_seconds=60)
    )


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        (None, None, 60),
        (b"5", None, 5),
        (None, 7.0, 7),
        (b"5", 7.0, 5),
        (b"900", 700.0, 60),
        (b"0.5", None, 0.5),
    ],
)
def test_a_client_can_only_shorten_its_time(header: bytes | None, body: float | None, seconds: float) -> None:
    assert limit(header, body) == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("header", [b"0", b"-1", b"nan", b"inf", b"\xff", b"soon", b""])
def test_a_time_that_is_no_time(header: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        limit(header, None)
    assert caught.value.param == "x-request-timeout"


async def test_time_spent_at_the_door_counts() -> None:
    call = call_of(Exchange("/"))
    await asyncio.sleep(0.02)
    assert time_limit(call, 1.0, Settings()) < 0.99
