"""What is to be fitted. Plain data: a command's help needs no torch."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["pca", "knn", "mahalanobis"]

MOST_BYTES: Final = 256 * 2**20
"""Of the rows that nearest neighbours are looked for in: each request reads all of them."""


@dataclass(frozen=True)
class Recipe:
    """What is fitted. `count`: components (None: as many as keep 95 % of the variance), or neighbours (None: 5).

    `standardize` None: whatever is no picture. `examples`: at most so many of the rows, drawn by `seed`, to look for neighbours in.
    """

    kind: Kind
    count: int | None = None
    standardize: bool | None = None
    examples: int | None = None
    seed: int = 0
