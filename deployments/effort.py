"""Which requests take longer than handing them to another thread: about 100 microseconds there and back."""

from collections.abc import Sequence
from typing import Final, TypeVar

from deployments.messages import (
    Calibrate,
    Decode,
    Draw,
    Encode,
    ImageItem,
    Interpolate,
    Reconstruct,
    RowItem,
    Score,
    SeriesItem,
    TensorItem,
)
from deployments.model import OneShotModel

OneShotRequest = TypeVar("OneShotRequest", Score, Calibrate, Reconstruct, Encode, Decode, Interpolate, Draw)

SMALL_TEXT: Final = 4096
"""Characters, or tokens."""

_SMALL_NUMBERS: Final = 65_536  # of arrays


def is_heavy(model: OneShotModel, request: OneShotRequest) -> bool:
    """Whether reading what was sent takes longer than handing it to another thread."""
    match request:
        case Draw():
            return request.source is not None
        case Interpolate():
            sent: Sequence[object] = (request.start, request.end)
        case Decode():
            sent = request.latents
        case _:
            sent = request.items
    large = model.item_numbers * sum(map(_slowness, sent)) > _SMALL_NUMBERS
    return large or any(isinstance(each, ImageItem | SeriesItem) for each in sent)


def _slowness(sent: object) -> int:
    """How many numbers of an array are read while one of these is."""
    match sent:
        case RowItem():  # each is checked by its name
            return 256
        case TensorItem(data=list()) | list():
            return 8
    return 1


def encodes_pictures(model: OneShotModel, request: OneShotRequest) -> bool:
    """Whether the answer has pictures in it."""
    match request:
        case Score():
            return request.map or request.mask
        case Reconstruct():
            return request.error_map or any(isinstance(item, ImageItem) for item in request.items)
        case Encode() | Calibrate():
            return False
        case _:
            return model.manifest.image is not None
