"""Whether an open graph is the one its manifest describes: same signature, same outputs for the recorded inputs.

Knows no runtime: who opened the graph hands in what it declares and a way to run it.
"""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.errors import BrokenGraph, GoldenMismatch, RunFailed
from model_store.manifest import Graph, Tensor

Array: TypeAlias = NDArray[Any]
Declared: TypeAlias = tuple[
    str, tuple[int | str | None, ...]
]  # type and sizes; None or a name where one may vary
Run: TypeAlias = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]

# An archive of a kilobyte can claim to unpack to a terabyte.
_MOST_BYTES: Final = 1 << 30
_LARGEST: Final = 127


def read_arrays(path: str, content: bytes) -> dict[str, Array]:
    """Arrays of an `.npz` file by name. `path` names it in messages. Raises BrokenGraph."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MOST_BYTES:
            raise BrokenGraph(f"{path} unpacks to {unpacked} bytes; at most {_MOST_BYTES} are allowed")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BrokenGraph(f"{path} is no archive of arrays") from error


def check_shape(tensor: Tensor, array: Array, what: str) -> None:
    """Raises BrokenGraph where an array is not of the type and the fixed sizes its tensor declares."""
    fixed = len(array.shape) == len(tensor.shape) and all(
        isinstance(declared, str) or declared == size
        for declared, size in zip(tensor.shape, array.shape, strict=True)
    )
    if array.dtype.name != tensor.dtype or not fixed:
        declared = f"{tensor.dtype}{list(tensor.shape)}"
        raise BrokenGraph(
            f"{what} {tensor.name!r} is {array.dtype}{list(array.shape)}; the manifest says {declared}"
        )


def compare(name: str, got: Array, expected: Array, *, rtol: float, atol: float) -> None:
    """Raises GoldenMismatch that says where and by how much. Whole numbers must be equal; NaN equals nothing.

    Numbers of 8 bits with a sign are rounded ones: half a step's difference makes a whole one, and a share is one of their range.
    """
    if got.shape != expected.shape:
        raise GoldenMismatch(f"output {name!r} has shape {list(got.shape)} instead of {list(expected.shape)}")
    if expected.dtype == np.int8:
        wrong = np.abs(got.astype(np.int32) - expected) > 1 + rtol * _LARGEST
    elif np.issubdtype(expected.dtype, np.floating):
        wrong = ~np.isclose(got, expected, rtol=rtol, atol=atol)
    else:
        wrong = got != expected
    if not wrong.any():
        return
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise GoldenMismatch(
        f"output {name!r} differs from the exporter's in {int(wrong.sum())} of {wrong.size} values, "
        f"first at {list(where)}: {got[where]!s} instead of {expected[where]!s}"
    )


def check_signature(graph: Graph, inputs: Mapping[str, Declared], outputs: Mapping[str, Declared]) -> None:
    """Raises BrokenGraph where what the graph declares is not what the manifest says."""
    named = {tensor.name for tensor in graph.inputs}
    if named != inputs.keys():
        raise BrokenGraph(f"it takes {sorted(inputs)}; the manifest says {sorted(named)}")
    for tensors, declared in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for tensor in tensors:
            if tensor.name not in declared:
                raise BrokenGraph(f"it has no output {tensor.name!r}")
            dtype, shape = declared[tensor.name]
            if dtype != tensor.dtype or not _agree(tensor.shape, shape):
                raise BrokenGraph(
                    f"{tensor.name!r} is {dtype}{list(shape)}; the manifest says {tensor.dtype}{list(tensor.shape)}"
                )


def _agree(said: Sequence[int | str], declared: Sequence[int | str | None]) -> bool:
    """Equal ranks, and no fixed size in the graph where the manifest says another or that it may vary."""
    return len(said) == len(declared) and all(
        a == b for a, b in zip(said, declared, strict=True) if isinstance(b, int)
    )


def replay(graph: Graph, read: Callable[[str], bytes], run: Run) -> None:
    """Run the recorded inputs and compare. Raises GoldenMismatch, BrokenGraph."""
    stored = graph.golden
    feeds = read_arrays(stored.inputs, read(stored.inputs))
    expected = read_arrays(stored.outputs, read(stored.outputs))
    for tensors, arrays, what in ((graph.inputs, feeds, "input"), (graph.outputs, expected, "output")):
        if {tensor.name for tensor in tensors} != arrays.keys():
            raise BrokenGraph(f"the golden {what}s are {sorted(arrays)}, not those of the manifest")
        for tensor in tensors:
            check_shape(tensor, arrays[tensor.name], f"the golden {what}")
    try:
        results = run(feeds, list(expected))
    except RunFailed as error:
        raise BrokenGraph(f"the golden input does not run: {error}") from error
    for (name, array), result in zip(expected.items(), results, strict=True):
        compare(name, result, array, rtol=stored.rtol, atol=stored.atol)
