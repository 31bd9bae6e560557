import json
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.errors import BadRequest
from deployments.items import tensor
from deployments.messages import TensorItem
from service.admission import parse
from service.tensors import parse_tensors

MANY = [k / 8 for k in range(64)]


def body(data: Any, **more: Any) -> bytes:
    return json.dumps({"input": [{"tensor": {"data": data, **more}}, {"tensor": {"data": MANY}}]}).encode()


def data_of(value: dict[str, Any]) -> Any:
    return value["input"][0]["tensor"]["data"]


@pytest.mark.parametrize(
    "data",
    [
        MANY,
        [MANY],
        [MANY[:32], MANY[32:]],
        [[MANY[k : k + 4] for k in range(0, 64, 4)]],
        [1, 2.5, -3, 0, -0.0, 2**53 + 1, 2**63, -(2**63), 1e-300, 3.4e38, 16777217],
        [[[[1]]]],
    ],
)
def test_lists_of_numbers_are_arrays(data: Any) -> None:
    found = data_of(parse_tensors(body(data)))
    assert found.dtype == np.float64
    assert found.shape == np.shape(data)
    assert found.tobytes() == np.array(data, np.float64).tobytes()


def test_arrays_travel_between_processes() -> None:
    found = data_of(parse_tensors(body([MANY, MANY])))
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(TensorItem(found), protocol=5, buffer_callback=buffers.append)
    assert pickle.loads(sent, buffers=buffers).data.tolist() == [MANY, MANY]  # noqa: S301 - our own bytes


def test_all_else_is_as_it_is_parsed_elsewhere() -> None:
    value = {
        "model": "m",
        "input": [
            {"tensor": {"shape": [8, 8], "data": MANY}},
            {"tensor": {"shape": [2], "data": "AAAA"}},
            {"features": {"a": 1, "b": None, "c": True, "d": "x, 1"}},
            {"series": [[1, 2], [3, None]], "timestamps": ["a", "b"]},
        ],
        "n": 2**64 - 1,
        "seed": -5,
        "rate": 0.1,
    }
    found = parse_tensors(json.dumps(value).encode())
    assert found["input"][0]["tensor"].pop("data").tolist() == MANY
    del value["input"][0]["tensor"]["data"]  # type: ignore[index]
    assert found == value
    assert json.dumps(found) == json.dumps(value)


def test_numbers_beyond_float32_are_left_to_the_program() -> None:
    found = data_of(parse_tensors(body([1e39, 1.0])))
    with pytest.raises(BadRequest, match="finite"):
        tensor(TensorItem(found), (2,), "p")


@pytest.mark.parametrize(
    "data",
    [
        [1.0, True],
        [1.0, None],
        [1.0, "2"],
        [1.0, {}],
        [1.0, [2.0]],
        [[1.0], 2.0],
        [[1.0, 2.0], [3.0]],
        [[1.0, 2.0], [[], [3.0, 4.0]]],  # as many numbers as in a shape, and as many parts in each
        [[], []],
        [],
        [2**64],
        [[[[[[[[[[[[[[[[[1.0]]]]]]]]]]]]]]]]],
    ],
)
def test_what_is_no_array_is_a_list(data: Any) -> None:
    assert data_of(parse_tensors(body(data))) == data


def test_lists_elsewhere_are_lists() -> None:
    assert parse_tensors(json.dumps({"latents": [MANY, MANY]}).encode()) == {"latents": [MANY, MANY]}


LONG = json.dumps(MANY).encode()


@pytest.mark.parametrize(
    "text",
    [
        b'{"data": ' + LONG + b', "a": 1, "a": 1}',
        b'{"data": ' + LONG + b', "data": ' + LONG + b"}",
        b'{"data": ' + LONG + b', "\\u0064ata": ' + LONG + b"}",
        b'{"data": ' + LONG + b', "a": "\\ud800"}',
        b'{"data": ' + LONG + b', "a": NaN}',
        b'{"data": ' + LONG + b', "a": "\xff"}',
        b'{"data": [1e999, ' + LONG[1:] + b"}",
        b'{"data": [01, ' + LONG[1:] + b"}",
        b'{"data": ' + LONG + b"]}",
        b'{"data": ' + LONG + b"}}",
        b'{"data": ' + LONG,
        b'\xef\xbb\xbf{"data": ' + LONG + b"}",
        b'{"a": ' + LONG + b', "data": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a": ' + LONG + b', "b": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"a": ' + LONG + b', "b": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
        b'{"data": [' + b"[1]," * (1 << 18) + b"[1]]}",
        b"{" + b",".join(b'"%d":1' % k for k in range(5000)) + b"}",
        LONG,
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(text: bytes) -> None:
    with pytest.raises(BadRequest) as expected:
        parse(text)
    with pytest.raises(BadRequest) as found:
        parse_tensors(text)
    assert vars(found.value) == vars(expected.value)


@pytest.mark.parametrize(
    "text",
    [
        b' {"data": ' + LONG + b"}",
        b'{"data": ' + LONG + b', "a": "\\n"}',
        b'{"data": ' + LONG + b', "a": "[:"}',
        b'{"data": ' + LONG + b', "a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"data": ' + LONG + b', "a": [1, [2]]}',
        b"{" + b",".join(b'"%d":1' % k for k in range(100)) + b', "data": ' + LONG + b"}",
    ],
)
def test_what_is_unusual_is_parsed_elsewhere(text: bytes) -> None:
    assert parse_tensors(text) == parse(text)


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1, width=32)
)
PARTS: st.SearchStrategy[Any] = st.one_of(NUMBERS, st.booleans(), st.none(), st.just("1"), st.just({}))


def nested(shape: list[int], values: list[Any]) -> Any:
    for size in reversed(shape):
        values = [values[k : k + size] for k in range(0, len(values), size)]
    return values[0] if values else []


REGULAR = st.lists(st.integers(1, 4), min_size=1, max_size=4).flatmap(
    lambda shape: st.lists(
        NUMBERS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
    ).map(lambda values: nested(shape, values))
)  # fmt: skip
RAGGED = st.recursive(st.lists(PARTS, max_size=4), lambda inner: st.lists(inner | PARTS, max_size=4))
SHAPES = st.none() | st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except BadRequest as error:
        return vars(error)


@given(data=REGULAR | RAGGED, shape=SHAPES, wanted=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@example(data=[struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]], shape=None, wanted=(1, 1))
def test_models_read_and_refuse_the_same(
    data: Any, shape: tuple[int, ...] | None, wanted: tuple[int, int]
) -> None:
    def seen(read: Callable[[bytes], dict[str, Any]]) -> Any:
        array = tensor(TensorItem(data_of(read(body(data))), shape), wanted, "input[0].tensor")
        return array.dtype, array.shape, array.tobytes()

    assert outcome(lambda: seen(parse_tensors)) == outcome(lambda: seen(parse))
