import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deployments.errors import ModelFault
from deployments.messages import Array, Output, TensorItem
from model_store.session import Array as Numbers
from service.answers import json_answer
from service.openai.items import numbers, write_output


def sent(values: Numbers) -> Array:
    return Array(values.shape, values.tobytes())


def test_numbers_are_as_short_as_their_precision_allows() -> None:
    values = np.array([[0.1, 1 / 3], [1e-7, 16777216]], np.float32)
    written = json_answer(write_output(Output(array=sent(values)), TensorItem([]))).body
    assert written == (
        b'{"tensor":{"shape":[2,2],"dtype":"float32","data":[[0.1,0.33333334],[1e-7,16777216.0]]}}'
    )


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(max_dims=4, max_side=4),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_numbers_are_read_as_they_were(values: Numbers) -> None:
    written = json.loads(json_answer(write_output(Output(array=sent(values)), None)).body)["tensor"]
    assert written["shape"] == list(values.shape)
    assert np.array(written["data"], np.float32).tobytes() == values.tobytes()
    assert json.loads(json_answer({"latent": numbers(sent(values))}).body)["latent"] == pytest.approx(
        values.ravel().tolist(), rel=1e-6
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_sent(value: float) -> None:
    values = np.array([[0, value]], np.float32)
    with pytest.raises(ModelFault):
        write_output(Output(array=sent(values)), None)
    with pytest.raises(ModelFault):
        numbers(sent(values))
