"""Fashion-MNIST for the image models: reads the IDX files, deals out batches, and names the data's source.

Knows no model. The data is Zalando's (MIT licence): 60,000 training and 10,000 test images of 28x28 grey pixels.
"""

import gzip
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.imaging import Denoise, Image
from model_store.zoo.sources import DataSource

CLASS_NAMES: Final = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIDE: Final = 28
DATA_FOLDER: Final = "fashion-mnist"
SOURCE: Final = DataSource(
    data="Fashion-MNIST",
    licence="MIT",
    attribution="Copyright (c) 2017 Zalando SE; Xiao, Rasul and Vollgraf, arXiv:1708.07747",
    home="https://github.com/zalandoresearch/fashion-mnist",
)
TEST_DATA: Final = "the 10,000 test images of Fashion-MNIST"

IMAGES_MAGIC: Final = 0x0803
LABELS_MAGIC: Final = 0x0801

Split: TypeAlias = Literal["train", "t10k"]
"""The 60,000 images that models learn from, or the 10,000 that only figures are measured on."""


class DataError(ValueError):
    """The data folder does not hold what Fashion-MNIST's home publishes."""


@dataclass(frozen=True)
class Fashion:
    """Images [count, 1, 28, 28] float32 in [0, 1] and their class numbers [count] int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def where(self, chosen: Tensor) -> Self:
        """Keep the images that a mask or a list of indices chooses."""
        return type(self)(self.images[chosen], self.labels[chosen])

    def of_class(self, label: int) -> Self:
        """Keep the images of one class."""
        return self.where(self.labels == label)

    def cut(self, last: int) -> tuple[Self, Self]:
        """Split off the last images, by which a score can be calibrated; at most half of a small set."""
        at = len(self) - min(last, len(self) // 2)
        return self.where(torch.arange(at)), self.where(torch.arange(at, len(self)))


def read_split(data: Path, split: Split) -> Fashion:
    """Read a split from `<data>/fashion-mnist/<split>-*-ubyte.gz`. Raises DataError where the files are not right."""
    folder = data / DATA_FOLDER
    pixels = _read_idx(folder / f"{split}-images-idx3-ubyte.gz", IMAGES_MAGIC, dimensions=3)
    labels = _read_idx(folder / f"{split}-labels-idx1-ubyte.gz", LABELS_MAGIC, dimensions=1)
    if len(pixels) != len(labels) or pixels.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{folder}: {split} has {len(labels)} labels for images of shape {pixels.shape}")
    if labels.size and labels.max() >= len(CLASS_NAMES):
        raise DataError(f"{folder}: {split} has a label above {len(CLASS_NAMES) - 1}")
    images = torch.from_numpy(pixels.astype(np.float32) / 255.0).unsqueeze(1)
    return Fashion(images, torch.from_numpy(labels.astype(np.int64)))


def _read_idx(path: Path, magic: int, dimensions: int) -> npt.NDArray[np.uint8]:
    try:
        raw = gzip.decompress(path.read_bytes())
        found, *shape = struct.unpack_from(f">{1 + dimensions}I", raw)
    except (OSError, EOFError, struct.error) as error:
        raise DataError(
            f"{path} cannot be read as gzipped IDX ({error}); the file's home is {SOURCE.home}"
        ) from error
    body = np.frombuffer(raw, np.uint8, offset=4 * (1 + dimensions))
    if found != magic or body.size != math.prod(shape):
        raise DataError(
            f"{path} has magic {found:#06x} and {body.size} bytes for {magic:#06x} and shape {shape}"
        )
    return body.reshape(shape)


def image_part(
    generator: str | None = None,
    noise: str | None = None,
    classes: tuple[str, ...] = (),
    denoise: Denoise | None = None,
) -> Image:
    """Describe the pictures, and where new ones can be drawn, the graph that does and its noise input, or how in steps."""
    return Image(
        channels=1,
        height=SIDE,
        width=SIDE,
        classes=classes,
        generator=generator,
        noise=noise,
        denoise=denoise,
    )


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield `steps` index tensors of `size`: every image once before any comes again, in a new order each time round."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:size]
        waiting = waiting[size:]


def reduced_precision() -> torch.autocast:
    """Open a bfloat16 region: training takes half the time on a core with AVX512-BF16, and needs no more precision."""
    return torch.autocast("cpu", torch.bfloat16)


def warmup_cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Raise the learning rate over the first 5 % of the steps, then lower it to zero along a cosine."""
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        falling = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0, step - warmup) / max(1, steps - warmup))))
        return min((step + 1) / warmup, falling)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def in_pieces(function: Callable[[Tensor], Tensor], images: Tensor, size: int = 500) -> Tensor:
    """Apply a function to a long tensor piece by piece, without gradients: all of its activations never live at once."""
    with torch.inference_mode():
        return torch.cat([function(piece) for piece in torch.split(images, size)])
