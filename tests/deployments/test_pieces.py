import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.pieces import all_finite, pieces


@given(st.integers(0, 20_000))
def test_pieces_are_the_whole(size: int) -> None:
    values = np.arange(size)
    assert (
        np.concatenate([values[:0], *(values[piece] for piece in pieces(size))]).tolist() == values.tolist()
    )


def test_few_numbers_are_in_pieces_that_hold_the_interpreter() -> None:
    assert max(piece.stop - piece.start for piece in pieces(8000)) == 500
    assert pieces(8001) == [slice(0, 8001)]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (784,), (3, 20, 20), (9000,)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(shape: tuple[int, ...], value: float) -> None:
    values = np.zeros(shape, np.float32)
    assert all_finite(values)
    for place in {0, values.size // 2, values.size - 1} if values.size else ():
        bad = values.copy()
        bad.reshape(-1)[place] = value
        assert not all_finite(bad)
    if values.ndim > 1:
        assert not all_finite(np.broadcast_to(np.float32(value), (3, 4)))
