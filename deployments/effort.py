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
)
from deployments.model import OneShotModel

OneShotRequest = TypeVar("OneShotRequest", Score, Calibrate, Reconstruct, Encode, Decode, Interpolate, Draw)

SMALL_TEXT: Final = 4096
"""Characters, or tokens."""

_SMALL_NUMBERS: Final = 8192
_SLOWER: Final = 32  # is a feature of a table row, which is checked by its name, than a number of a tensor


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
    slow = _SLOWER if any(isinstance(each, RowItem) for each in sent) else 1
    large = len(sent) * model.item_numbers * slow > _SMALL_NUMBERS
    return large or any(isinstance(each, ImageItem | SeriesItem) for each in sent)


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
