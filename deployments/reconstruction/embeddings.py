"""Embeddings of items: the latents that encoders find, of length 1."""

import numpy as np

from deployments.errors import BadRequest
from deployments.messages import (
    Array,
    Embed,
    Encode,
    ImageItem,
    Item,
    Output,
    RowItem,
    SeriesItem,
    TensorItem,
)


def encoding_of(request: Embed) -> Encode:
    """What finds the latents of what is to be embedded. Raises BadRequest for text."""
    items: list[Item] = []
    for place, item in enumerate(request.inputs):
        if not isinstance(item, ImageItem | TensorItem | RowItem | SeriesItem):
            raise BadRequest(
                "This model embeds items, not text.", code="invalid_type", param=f"input[{place}]"
            )
        items.append(item)
    return Encode(
        request.model,
        tuple(items),
        request_id=request.request_id,
        version=request.version,
        timeout_seconds=request.timeout_seconds,
    )


def embedded(output: Output, dimensions: int | None) -> Output:
    """A latent, or its first dimensions, with length 1; one that is zero stays it. Raises BadRequest."""
    latent = np.frombuffer(output.latent.data if output.latent else b"", "<f4").astype(np.float64)
    if dimensions is not None and dimensions > latent.size:
        raise BadRequest(f"This model's vectors have {latent.size} dimensions.", param="dimensions")
    latent = latent[:dimensions]
    length = float(np.linalg.norm(latent)) or 1.0
    return Output(array=Array(latent.shape, (latent / length).astype("<f4").tobytes()))
