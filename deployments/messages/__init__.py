"""Frozen dataclasses that cross a process boundary, and the one seam they travel through.

Requests are validated by whoever speaks HTTP; what depends on the model (context length, class names, item shapes)
is checked by the model's program. No pydantic, no numpy: these are pickled between processes.
"""

from deployments.messages.answers import (
    Alarm,
    Array,
    Calibration,
    Card,
    Exposition,
    Imputed,
    Output,
    Picture,
    Reply,
    Timings,
    Usage,
)
from deployments.messages.client import ModelClient, Request
from deployments.messages.images import Draw, Source
from deployments.messages.items import (
    Calibrate,
    Calibrations,
    Decode,
    Encode,
    ImageItem,
    Interpolate,
    Item,
    Numbers,
    Reconstruct,
    RowItem,
    Score,
    SeriesItem,
    TensorItem,
)
from deployments.messages.text import (
    Chat,
    Classify,
    Complete,
    Detokenize,
    Embed,
    Grammar,
    Prompt,
    TextDelta,
    Tokenize,
    TokenLogprob,
)

__all__ = [
    "Alarm",
    "Array",
    "Calibrate",
    "Calibration",
    "Calibrations",
    "Card",
    "Chat",
    "Classify",
    "Complete",
    "Decode",
    "Detokenize",
    "Draw",
    "Embed",
    "Encode",
    "Exposition",
    "Grammar",
    "ImageItem",
    "Imputed",
    "Interpolate",
    "Item",
    "ModelClient",
    "Numbers",
    "Output",
    "Picture",
    "Prompt",
    "Reconstruct",
    "Reply",
    "Request",
    "RowItem",
    "Score",
    "SeriesItem",
    "Source",
    "TensorItem",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "Tokenize",
    "Usage",
]
