"""The inputs a graph is traced with and compared on. Knows tensors' descriptions and numpy, neither torch nor a runtime."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from model_store.export.draft import BATCH_SIZES, GraphDraft, Range
from model_store.export.errors import DraftError
from model_store.manifest import Tensor

Array: TypeAlias = npt.NDArray[Any]
Case: TypeAlias = dict[str, Array]
"""One set of inputs, by name."""

SEED = 20_260_101


def dimensions(tensors: Sequence[Tensor]) -> list[str]:
    """Names of the dimensions that may vary, in the order they appear."""
    return list(dict.fromkeys(size for each in tensors for size in each.shape if isinstance(size, str)))


def sizes_of(graph: GraphDraft) -> dict[str, tuple[int, int]]:
    """Two sizes for every named dimension of the inputs: the draft's own, else sizes that no other dimension has.

    Raises DraftError for a size of a dimension that no input has.
    """
    names = dimensions(graph.inputs)
    unknown = sorted(graph.sizes.keys() - set(names))
    if unknown:
        raise DraftError(
            f"sizes are given for {', '.join(unknown)}, which no input has; the inputs have {names}"
        )
    others = [name for name in names if name != "batch"]
    defaults = {name: (4 + 3 * place, 6 + 3 * place) for place, name in enumerate(others)} | {
        "batch": BATCH_SIZES
    }
    return {name: graph.sizes.get(name, defaults[name]) for name in names}


def trace_example(graph: GraphDraft) -> list[Array]:
    """Zeros to trace the module with, in the order of its inputs.

    A dimension of size 1 would be taken for a constant, so the larger of its two sizes stands for it, and at least 2.
    """
    sizes = {name: max(*pair, 2) for name, pair in sizes_of(graph).items()}
    return [np.zeros(_shape(each, sizes), each.dtype) for each in graph.inputs]


def random_cases(graph: GraphDraft) -> list[Case]:
    """Random inputs at both sizes of every dimension: the batch's two times the others' two (all of them moving together)."""
    unknown = sorted(graph.ranges.keys() - {each.name for each in graph.inputs})
    if unknown:
        raise DraftError(f"ranges are given for {', '.join(unknown)}, which is no input")
    generator = np.random.default_rng(SEED)
    sizes = sizes_of(graph)
    others = [name for name in sizes if name != "batch"]
    choices = itertools.product((0, 1) if others else (0,), (0, 1) if "batch" in sizes else (0,))
    cases = []
    for other, batch in choices:
        chosen = {name: pair[batch if name == "batch" else other] for name, pair in sizes.items()}
        cases.append(
            {t.name: _random(t, _shape(t, chosen), graph.ranges.get(t.name), generator) for t in graph.inputs}
        )
    return cases


def check_cases(graph: GraphDraft, cases: Sequence[Mapping[str, Array]]) -> None:
    """Raise DraftError unless every case fits the inputs and every named dimension takes two sizes among them.

    Inputs and outputs live in one graph: no name may be used twice.
    """
    used = [each.name for each in (*graph.inputs, *graph.outputs)]
    twice = sorted({name for name in used if used.count(name) > 1})
    if twice:
        raise DraftError(f"inputs and outputs share the name {', '.join(twice)}: rename one of them")
    seen: dict[str, set[int]] = {name: set() for name in dimensions(graph.inputs)}
    for place, case in enumerate(cases):
        names = [each.name for each in graph.inputs]
        if set(case) != set(names):
            raise DraftError(
                f"case {place} has the inputs {sorted(case)} where the graph has {sorted(names)}"
            )
        for name, size in bind(graph.inputs, case).items():
            seen[name].add(size)
    frozen = sorted(name for name, found in seen.items() if len(found) < 2)
    if frozen:
        raise DraftError(
            f"the cases must show at least two sizes of {', '.join(frozen)}, or a frozen one goes unseen"
        )


def bind(tensors: Sequence[Tensor], arrays: Mapping[str, Array]) -> dict[str, int]:
    """Sizes of the named dimensions in `arrays`. Raises DraftError where an array does not fit its description."""
    sizes: dict[str, int] = {}
    for each in tensors:
        array = arrays[each.name]
        fits = array.dtype == np.dtype(each.dtype) and array.ndim == len(each.shape)
        for declared, size in zip(each.shape, array.shape, strict=False):
            known = sizes.setdefault(declared, size) if isinstance(declared, str) else declared
            fits = fits and known == size
        if not fits:
            raise DraftError(
                f"{each.name!r} is {described(array)} where {each.dtype}[{', '.join(map(str, each.shape))}] belongs"
                + (f" with {sizes}" if sizes else "")
            )
    return sizes


def only(tensors: Sequence[Tensor], arrays: Mapping[str, Array]) -> Case:
    """The arrays that these tensors describe."""
    names = {each.name for each in tensors}
    return {name: array for name, array in arrays.items() if name in names}


def at(sizes: Mapping[str, int]) -> str:
    """Say where in the space of shapes: `batch 2, time 4`."""
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) or "its fixed shape"


def described(array: Array) -> str:
    """Name dtype and shape: `float32[2, 28]`."""
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def _shape(spec: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)


def _random(
    spec: Tensor, shape: tuple[int, ...], limits: Range | None, generator: np.random.Generator
) -> Array:
    if spec.dtype not in {"float32", "float16"}:
        low, high = limits or (0, 1)
        return np.asarray(generator.integers(int(low), int(high), shape, endpoint=True)).astype(spec.dtype)
    values = generator.standard_normal(shape) if limits is None else generator.uniform(*limits, shape)
    return np.asarray(values).astype(spec.dtype)
