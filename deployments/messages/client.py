"""The one seam that messages travel through."""

from collections.abc import AsyncGenerator
from typing import Protocol, TypeAlias

from deployments.messages.answers import Card, Exposition, Picture, Reply
from deployments.messages.images import Draw
from deployments.messages.items import (
    Calibrate,
    Calibrations,
    Decode,
    Encode,
    Interpolate,
    Reconstruct,
    Score,
)
from deployments.messages.latents import Combine, Compress, Decompress, Traverse
from deployments.messages.text import Classify, Complete, Detokenize, Embed, TextDelta, Tokenize

Request: TypeAlias = (
    Complete
    | Tokenize
    | Detokenize
    | Embed
    | Classify
    | Reconstruct
    | Score
    | Calibrate
    | Calibrations
    | Encode
    | Decode
    | Interpolate
    | Traverse
    | Combine
    | Compress
    | Decompress
    | Draw
)


class ModelClient(Protocol):
    """The seam between the door and the engines: a local one in a host, a remote one in the gateway.

    Every method raises `deployments.errors.ServingError` and nothing else on purpose.
    """

    async def cards(self) -> tuple[Card, ...]:
        """Cards of all models behind this client."""

    async def call(self, request: Request) -> Reply:
        """Answer a one-shot request (anything but `Complete`)."""

    def stream(self, request: Complete) -> AsyncGenerator[TextDelta, None]:
        """Continue text. Closing the generator cancels the rows at their next step."""

    async def collect(self, request: Complete) -> tuple[TextDelta, ...]:
        """Continue text and answer once: one delta per row, in row order; the last one has usage and timings."""

    def pictures(self, request: Draw) -> AsyncGenerator[Picture, None]:
        """Draw, one picture after the other as they are ready; closing the generator cancels the others."""

    async def expositions(self) -> tuple[Exposition, ...]:
        """Metrics of every replica behind this client (not of this process's own door)."""

    async def ready(self) -> bool:
        """Whether a model answered lately, so that a request sent now would be answered."""
