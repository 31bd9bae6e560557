"""Compares an exported graph, run by the session that will serve it, with what torch computed from the same inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from model_store.errors import RunFailed
from model_store.export.cases import Array, at, bind, described
from model_store.export.errors import DraftError, ParityError
from model_store.manifest import Tensor

LIMITS: Final[Mapping[str, float]] = {"float32": 1e-4, "float16": 1e-2}
"""Largest relative error by dtype; every other dtype must be equal."""

SMALLEST_SCALE: Final = 1e-3
"""An output smaller than this throughout is compared as if it were this large: rounding noise has no relative size."""


class Runs(Protocol):
    """What is compared: an open session, or a plain function in tests."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute the outputs by name."""
        ...


@dataclass(frozen=True)
class Figure:
    """The worst relative error of one output over all cases, beside the largest allowed (0 where it must be equal)."""

    graph: str
    output: str
    cases: int
    error: float
    limit: float


def compare_graph(
    session: Runs,
    graph: str,
    tensors: tuple[Sequence[Tensor], Sequence[Tensor]],
    cases: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> list[Figure]:
    """Run every case (inputs, torch's outputs) and compare each output; `tensors` are the graph's inputs and outputs.

    Raises ParityError for the first output that differs in shape, dtype or value, or where the graph cannot run.
    """
    inputs, outputs = tensors
    names = [each.name for each in outputs]
    worst = dict.fromkeys(names, 0.0)
    for feeds, expected in cases:
        sizes = bind(inputs, feeds)
        try:
            found = session.run(feeds, names)
        except RunFailed as error:
            where = f"graph {graph!r} fails at {at(sizes)}, where torch does not"
            raise ParityError(f"{where}: a dimension may be frozen ({error})", graph=graph) from error
        try:
            bind([*inputs, *outputs], {**feeds, **expected})
        except DraftError as error:
            raise DraftError(f"graph {graph!r} at {at(sizes)}: torch's {error.message}") from error
        for name, value in zip(names, found, strict=True):
            worst[name] = max(
                worst[name], compare(expected[name], value, graph=graph, output=name, sizes=sizes)
            )
    limits = {each.name: LIMITS.get(each.dtype, 0.0) for each in outputs}
    return [Figure(graph, name, len(cases), worst[name], limits[name]) for name in names]


def compare(expected: Array, found: Array, *, graph: str, output: str, sizes: Mapping[str, int]) -> float:
    """The relative error max |found - expected| / max |expected|, or 0 for equal whole numbers.

    Infinities must be the same ones in the same places, and no NaN is ever right. Raises ParityError above the limit.
    """
    what = f"graph {graph!r}, output {output!r} at {at(sizes)}"
    if expected.shape != found.shape or expected.dtype != found.dtype:
        message = f"{what}: the graph gives {described(found)}, torch {described(expected)}"
        raise ParityError(message, graph=graph, output=output)
    if expected.size == 0:
        return 0.0
    limit = LIMITS.get(str(expected.dtype), 0.0)
    apart = _apart(expected, found)
    if not limit:  # unequal whole numbers differ, also where double precision takes them for equal
        apart = np.where(expected == found, 0.0, np.maximum(apart, np.finfo(np.float64).tiny))
    place = np.unravel_index(int(apart.argmax()), apart.shape)
    error = float(apart[place])
    if error > limit:
        index = tuple(int(each) for each in place)
        raise ParityError(
            f"{what}: the graph gives {found[place]:.9g} at {list(index)} where torch gives {expected[place]:.9g}, "
            f"a relative error of {error:.2g} ({limit:.0e} is allowed)",
            graph=graph,
            output=output,
            index=index,
            expected=float(expected[place]),
            found=float(found[place]),
            error=error,
        )
    return error


def _apart(expected: Array, found: Array) -> Array:
    """Relative difference of every element, in double precision; infinite where they cannot be compared."""
    truth, value = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(truth)
    scale = max(float(np.abs(truth[finite]).max(initial=0.0)), SMALLEST_SCALE)
    with np.errstate(invalid="ignore"):
        apart = np.where(expected == found, 0.0, np.abs(value - truth) / scale)
    return np.where(np.isnan(apart), np.inf, apart)
