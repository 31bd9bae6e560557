"""A folder like Fashion-MNIST's, small and made up: every class is a bright rectangle of its own, with a little noise."""

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.zoo.fashion import DATA_FOLDER, IMAGES_MAGIC, LABELS_MAGIC, SIDE

CLASSES = 10


def write_tiny_fashion(data: Path, train: int = 60, test: int = 40) -> Path:
    """Write both splits below `data`, as many images of each class; return `data`."""
    generator = np.random.default_rng(0)
    (data / DATA_FOLDER).mkdir(parents=True)
    for split, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % CLASSES
        write_idx(
            data / DATA_FOLDER / f"{split}-images-idx3-ubyte.gz", IMAGES_MAGIC, _draw(labels, generator)
        )
        write_idx(data / DATA_FOLDER / f"{split}-labels-idx1-ubyte.gz", LABELS_MAGIC, labels)
    return data


def write_idx(path: Path, magic: int, values: npt.NDArray[np.integer]) -> None:
    """Write unsigned bytes in the IDX format, gzipped."""
    header = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def _draw(labels: npt.NDArray[np.integer], generator: np.random.Generator) -> npt.NDArray[np.integer]:
    pixels = generator.integers(0, 40, (len(labels), SIDE, SIDE))
    for image, label in zip(pixels, labels, strict=True):
        image[4 : 8 + 2 * label, 4 : 24 - label] += 200
    return pixels


class Steps:
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.figures: dict[str, float] = {}

    def __call__(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Note where the recipe is."""
        self.seen.append((step, steps))
        self.figures |= figures
