import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deployments.config import HostConfig
from deployments.errors import BadRequest
from deployments.items import Items, tensor, vector
from deployments.messages import ImageItem, TensorItem
from deployments.pictures import MAX_PIXELS, encode
from model_store.imaging import Image, Resize

SHAPE = (1, 2, 3)
FLAT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
NESTED = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def refused(data: Any, shape: tuple[int, ...] | None = None) -> tuple[str | None, str]:
    with pytest.raises(BadRequest) as error:
        tensor(TensorItem(data, shape), SHAPE, "input[3].tensor")
    return error.value.param, error.value.message


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (FLAT, None),
        (FLAT, (2, 3)),
        (FLAT, (1, 2, 3)),
        (FLAT, (1, 1, 2, 1, 3, 1)),
        (NESTED, None),
        (NESTED, (2, 3)),
        ([NESTED], None),
        ([[[[x] for x in row] for row in NESTED]], None),
        (struct.pack("<6f", *FLAT), (1, 2, 3)),
        (struct.pack("<6f", *FLAT), None),
        ([1, 2, 3, 4, 5, 6], None),
        ([1, 2.0, 3, 4.0, 5, 6], None),
    ],
)
def test_the_same_numbers_in_many_forms(data: Any, shape: tuple[int, ...] | None) -> None:
    array = tensor(TensorItem(data, shape), SHAPE, "p")
    assert array.dtype == np.float32
    assert array.tolist() == [NESTED]


@pytest.mark.parametrize(
    ("data", "shape", "part"),
    [
        (FLAT[:5], None, "data"),
        ([*FLAT, 7.0], None, "data"),
        ([], None, "data"),
        (NESTED, (3, 2), "shape"),
        (NESTED, (6,), "shape"),
        (FLAT, (3, 2), "shape"),
        (FLAT, (6,), "shape"),
        (FLAT, (2, 4), "shape"),
        (FLAT, (), "shape"),
        (FLAT, (-2, -3), "shape"),
        (FLAT, (0,), "shape"),
        (FLAT[:3], (2, 3), "data"),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], None, "shape"),
        ([[], []], None, "shape"),
        (b"\0" * 24 + b"\0", (2, 3), "data"),
        (b"\0" * 20, (2, 3), "data"),
        (b"", (2, 3), "data"),
    ],
)
def test_another_shape_is_refused(data: Any, shape: tuple[int, ...] | None, part: str) -> None:
    assert refused(data, shape)[0] == f"input[3].tensor.{part}"


@pytest.mark.parametrize(
    "data",
    [
        [1.0, 2.0, 3.0, 4.0, 5.0, "6"],
        ["1"] * 6,
        [True] * 6,
        [1.0, 2.0, 3.0, 4.0, 5.0, True],
        [None] * 6,
        [1.0, 2.0, None, 4.0, 5.0, 6.0],
        [{}] * 6,
        [[1.0, 2.0, 3.0], [4.0, 5.0]],
        [[1.0, 2.0, 3.0], 4.0],
        [1.0, [2.0, 3.0]],
        [[[1.0, 2.0, 3.0]], [[4.0, 5.0, "6"]]],
        [[[1.0, 2.0, 3.0]], [[4.0, [5.0], 6.0]]],
    ],
)
def test_what_is_no_table_of_numbers_is_refused(data: Any) -> None:
    param, message = refused(data)
    assert param == "input[3].tensor.data"
    assert "numbers in lists of equal length" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39, -1e300, 10**400, 2**128])
def test_what_is_not_finite_in_float32_is_refused(bad: float) -> None:
    param, message = refused([*FLAT[:5], bad])
    assert param == "input[3].tensor.data"
    assert "finite" in message


def test_a_number_that_json_reads_as_infinite_is_refused() -> None:
    assert "finite" in refused(json.loads("[1, 2, 3, 4, 5, 1e400]"))[1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_raw_bytes_must_be_finite_too(bad: float) -> None:
    assert "finite" in refused(struct.pack("<6f", *FLAT[:5], bad), (2, 3))[1]


@pytest.mark.parametrize("depth", [17, 100, 5000])
def test_deep_nesting_is_refused(depth: int) -> None:
    data: Any = FLAT
    for _ in range(depth):
        data = [data]
    assert refused(data)[0] == "input[3].tensor.data"


@pytest.mark.parametrize("length", [7, 100])
def test_a_long_shape_is_refused_or_honoured(length: int) -> None:
    assert tensor(TensorItem(FLAT, (1,) * length + (2, 3)), SHAPE, "p").shape == SHAPE


@given(arrays.arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_lists_and_bytes_give_the_same_numbers(array: np.ndarray[Any, Any]) -> None:
    for data in (array.tolist(), array.ravel().tolist(), array.astype("<f4").tobytes()):
        assert tensor(TensorItem(data, None), SHAPE, "p").tobytes() == array.tobytes()


def test_a_vector_is_flat() -> None:
    assert vector([1, 2.5], 2, "latents[1]").tolist() == [1, 2.5]


@pytest.mark.parametrize("data", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], ["1", "2"], [True, False], []])
def test_a_vector_of_another_kind_is_refused(data: Any) -> None:
    with pytest.raises(BadRequest) as error:
        vector(data, 2, "latents[1]")
    assert error.value.param == "latents[1]"


def test_what_was_read_can_be_written_to() -> None:
    """Raw bytes are the client's and read-only; the model's input is a copy."""
    assert tensor(TensorItem(struct.pack("<6f", *FLAT)), SHAPE, "p").flags.writeable


# -- items of a model --------------------------------------------------------------------------------------------------


def test_a_picture_is_read_as_the_model_takes_it() -> None:
    items = Items((1, 4, 4), Image(channels=1, height=4, width=4))
    assert items.pictures
    assert items.numbers == 16
    pixels = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    assert np.abs(items.read(ImageItem(encode(pixels)), "input[0]") - pixels).max() < 0.01
    assert (items.read(TensorItem(pixels.tolist()), "input[0]") == pixels).all()


KEPT = Image(channels=1, height=4, width=4, resize=Resize(mode="keep", largest=12, multiple=2))


def test_pictures_keep_their_size_where_the_model_takes_any() -> None:
    items = Items((1, "height", "width"), KEPT)
    assert items.shape == (1, 4, 4)
    for height, width, kept in ((4, 6, (4, 6)), (5, 1, (4, 2)), (24, 6, (12, 4))):
        picture = ImageItem(encode(np.zeros((1, height, width), np.float32)))
        assert items.read(picture, "p").shape == (1, *kept)
    wide: list[list[float]] = [[0.0] * 6] * 4
    for tensor_ in (TensorItem(wide), TensorItem([wide]), TensorItem([0.0] * 24, (1, 4, 6))):
        assert items.read(tensor_, "p").shape == (1, 4, 6)
    for bad in (
        TensorItem([0.0] * 24),
        TensorItem([[0.0] * 5] * 4),
        TensorItem([0.0] * 28, (2, 14)),
        TensorItem([]),
    ):
        with pytest.raises(BadRequest, match="multiples of 2 up to 12") as error:
            items.read(bad, "input[0]")
        assert error.value.param == "input[0].tensor.shape"
    with pytest.raises(BadRequest) as error:
        items.read(TensorItem([[0.0] * 6] * 3 + [[0.0] * 5]), "input[0]")
    assert error.value.param == "input[0].tensor.data"


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(1, 16), st.integers(1, 64))
def test_kept_sides_are_allowed_ones(height: int, width: int, multiple: int, most: int) -> None:
    resize = Resize(mode="keep", largest=multiple * most, multiple=multiple)
    sides = resize.sides(height, width)
    assert resize.allows(sides)
    if resize.allows((height, width)):
        assert sides == (height, width)


def test_a_broken_picture_names_its_place() -> None:
    with pytest.raises(BadRequest) as error:
        Items((1, 4, 4), Image(channels=1, height=4, width=4)).read(ImageItem(b"no picture"), "input[2]")
    assert error.value.param == "input[2].image"


def test_a_model_of_tensors_takes_no_pictures() -> None:
    items = Items((4,), None)
    assert not items.pictures
    with pytest.raises(BadRequest, match="tensors, not images") as error:
        items.read(ImageItem(encode(np.zeros((1, 2, 2), np.float32))), "from")
    assert error.value.param == "from.image"


def test_pictures_are_bounded_by_the_hosts_setting() -> None:
    items = Items((1, 4, 4), Image(channels=1, height=4, width=4), most_pixels=15)
    picture = ImageItem(encode(np.zeros((1, 4, 4), np.float32)))
    with pytest.raises(BadRequest) as error:
        items.read(picture, "input[0]")
    assert (error.value.code, error.value.param) == ("image_too_large", "input[0].image")
    assert HostConfig().max_image_pixels == MAX_PIXELS
