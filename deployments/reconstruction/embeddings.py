"""Embeddings of items: the latents that encoders find, of length 1."""

import numpy as np

from deployments.errors import BadRequest
from deployments.messages import Array, Embed, ImageItem, Item, Output, RowItem, SeriesItem, TensorItem


def items_of(request: Embed) -> tuple[Item, ...]:
    """What is to be embedded. Raises BadRequest for text."""
    items = []
    for place, item in enumerate(request.inputs):
        if not isinstance(item, ImageItem | TensorItem | RowItem | SeriesItem):
            raise BadRequest(
                "This model embeds items, not text.", code="invalid_type", param=f"input[{place}]"
            )
        items.append(item)
    return tuple(items)


def embedded(output: Output, dimensions: int | None) -> Output:
    """A latent, or its first dimensions, with length 1; one that is zero stays it. Raises BadRequest."""
    latent = np.frombuffer(output.latent.data if output.latent else b"", "<f4").astype(np.float64)
    if dimensions is not None and dimensions > latent.size:
        raise BadRequest(f"This model's vectors have {latent.size} dimensions.", param="dimensions")
    latent = latent[:dimensions]
    length = float(np.linalg.norm(latent)) or 1.0
    return Output(array=Array(latent.shape, (latent / length).astype("<f4").tobytes()))
