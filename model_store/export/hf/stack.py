"""Several adapters of one model side by side, product by product of its graph, as files carry them. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from model_store.export.hf.rows import Array

FILE: Final = "adapters.npz"


@dataclass(frozen=True)
class Stack:
    """All that adapters add to one product: `down` f32 [in, columns] and `up` f32 [columns, out].

    `owner` i64 [columns] says which adapter each column between them belongs to, counted from 1.
    """

    down: Array
    up: Array
    owner: Array


def write_stacks(folder: Path, stacks: Mapping[str, Stack]) -> None:
    """Write the stacks by the names of the products."""
    arrays = {
        f"{part} {name}": array for name, stack in stacks.items() for part, array in vars(stack).items()
    }
    np.savez(folder / FILE, allow_pickle=False, **arrays)


def read_stacks(folder: Path) -> dict[str, Stack]:
    """Read what `write_stacks` wrote."""
    parts: dict[str, dict[str, Array]] = {}
    with np.load(folder / FILE, allow_pickle=False) as stored:
        for key in stored.files:
            part, _, name = key.partition(" ")
            parts.setdefault(name, {})[part] = stored[key]
    return {name: Stack(**arrays) for name, arrays in parts.items()}
