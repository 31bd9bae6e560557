"""Items between the wire and the messages: base64, `data:` URLs and nested lists on one side, bytes on the other.

Decodes no picture and shapes no array: the model's program knows what it takes.
"""

import math
import re
from binascii import Error
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pybase64 import b64decode, b64encode_as_string

from deployments.errors import BadRequest, ModelFault
from deployments.messages import Alarm, Array, ImageItem, Item, Output, RowItem, SeriesItem, TensorItem
from deployments.pieces import all_finite
from service.openai.schemas.fields import File
from service.openai.schemas.items import InputItem, TensorData

_DATA_URL: Final = re.compile(r"data:image/(png|jpeg|webp);base64,")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
FLOAT_BYTES: Final = 4


def read_item(item: InputItem, place: str) -> Item:
    """The item as a message carries it; `place` is where it stands in the request. Raises BadRequest."""
    if item.image is not None:
        return ImageItem(read_picture(item.image, f"{place}.image"))
    if item.tensor is not None:
        return _tensor(item.tensor, f"{place}.tensor")
    if item.features is not None:
        return RowItem(item.features)
    return SeriesItem(item.series or [], item.timestamps, item.session)


def read_items(items: list[InputItem]) -> tuple[Item, ...]:
    """The items of a request's `input`. Raises BadRequest."""
    return tuple(read_item(item, f"input[{place}]") for place, item in enumerate(items))


def read_picture(picture: str | File, place: str) -> bytes:
    """An encoded picture, from base64, a `data:` URL or a file of a form. Raises BadRequest."""
    data = picture.data if isinstance(picture, File) else _written(picture, place)
    if not data:
        raise BadRequest("The picture is empty.", param=place)
    return data


def _written(text: str, place: str) -> bytes:
    data_url = _DATA_URL.match(text)
    if data_url is not None:
        text = text[data_url.end() :]
    elif text.startswith("data:"):
        raise BadRequest("A data URL must be base64 of image/png, image/jpeg or image/webp.", param=place)
    elif _URL.match(text):
        raise BadRequest(
            "URLs are not fetched: send the picture itself.", code="unsupported_url", param=place
        )
    return read_base64(text, place)


def _tensor(tensor: TensorData, place: str) -> TensorItem:
    shape = None if tensor.shape is None else tuple(tensor.shape)
    if isinstance(tensor.data, list | np.ndarray):
        return TensorItem(tensor.data, shape)
    if not isinstance(tensor.data, str):
        raise BadRequest(
            "Tensor data is a list of numbers or base64.", code="invalid_type", param=f"{place}.data"
        )
    if shape is None:
        raise BadRequest(
            "Base64 data needs a shape.", code="missing_required_parameter", param=f"{place}.shape"
        )
    data = read_base64(tensor.data, f"{place}.data")
    if len(data) != FLOAT_BYTES * math.prod(shape):
        raise BadRequest(f"The shape does not fit {len(data)} bytes of float32.", param=f"{place}.shape")
    return TensorItem(data, shape)


def read_base64(text: str, place: str) -> bytes:
    """What base64 stands for. Raises BadRequest."""
    try:
        return b64decode(text, validate=True)
    except (Error, ValueError):
        raise BadRequest("This is not base64.", param=place) from None


def write_png(png: bytes) -> dict[str, str]:
    """An encoded picture as an item."""
    return {"image": b64encode_as_string(png)}


def write_output(output: Output, asked: Item | None) -> dict[str, Any]:
    """An output as an item: a picture, or numbers in the form the request's item had."""
    if output.image is not None:
        return write_png(output.image)
    if output.features is not None:
        return {"features": output.features}
    if output.array is None:
        raise ModelFault("The model made no output.")
    nested = _nested(output.array)
    if isinstance(asked, SeriesItem):
        return {"series": nested if isinstance(asked.values[0], list) else nested.ravel()}
    raw = isinstance(asked, TensorItem) and isinstance(asked.data, bytes)
    data = b64encode_as_string(output.array.data) if raw else nested
    return {"tensor": {"shape": output.array.shape, "dtype": "float32", "data": data}}


def write_alarm(alarm: Alarm) -> dict[str, Any]:
    """An alarm, with the timestamps where there are any."""
    fields = {"start": alarm.start, "end": alarm.end, "peak": finite(alarm.peak), "open": alarm.open}
    stamps = {"began": alarm.began, "ended": alarm.ended}
    return fields | {name: stamp for name, stamp in stamps.items() if stamp is not None}


def numbers(array: Array) -> NDArray[np.float32]:
    """A vector, to be written as a list. Raises ModelFault if a number is not finite."""
    return _nested(array).ravel()


def finite(value: float | None) -> float:
    """A number that can be sent. Raises ModelFault."""
    if value is None or not math.isfinite(value):
        raise _not_finite()
    return value


def _not_finite() -> ModelFault:
    return ModelFault("The model made a number that is not finite.")


def _nested(array: Array) -> NDArray[np.float32]:
    values = np.frombuffer(array.data, "<f4").reshape(array.shape)
    if not all_finite(values):
        raise _not_finite()
    return values
