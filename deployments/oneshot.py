"""The program of models that answer in one step: rows that wait together run together, padded to a bucket.

Knows graphs and arrays, not what the arrays mean.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from deployments.metrics import Metrics
from deployments.rows import Row, RowsFailed
from model_store.errors import BrokenGraph, RunFailed
from model_store.manifest import Graph
from model_store.session import Array, Binding, Session


@dataclass(frozen=True, slots=True)
class Task:
    """One row's inputs, by role, without a batch dimension; `outputs` are the roles it wants back.

    `then` makes its next task of them, quickly: it is called in the engine's thread.
    """

    graph: str
    feeds: Mapping[str, Array]
    outputs: tuple[str, ...]
    place: int = 0  # among its request's tasks
    then: "Callable[[Result], Task] | None" = None


Result: TypeAlias = dict[str, Array]
Sizes: TypeAlias = tuple[int, ...]
Done = tuple[int, Result]  # the task's place, its outputs by role
TaskRow = Row[Task, Done]

# Buckets whose memory is kept, of a graph whose rows vary in shape.
_SHAPES: Final = 16
# In one tensor of them.
_NUMBERS: Final = 1 << 22
# Bytes of a row that is copied in less time than it takes to ask for it.
_SHARED: Final = 4096


def buckets(limit: int) -> list[int]:
    """Batch sizes worth a binding: 1, 2, 3, 4, 6, 8, 12, ... so that padding never exceeds a third of a run."""
    sizes = sorted(
        {size for power in range(limit.bit_length()) for size in (1 << power, 3 << power >> 1)} | {limit}
    )
    return [size for size in sizes if size <= limit]


class OneShot:
    """Runs whatever waits as soon as the device is free. Belongs to the engine's thread."""

    def __init__(
        self,
        name: str,
        graphs: Mapping[str, tuple[Graph, Session]],
        metrics: Metrics,
        *,
        max_batch: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.capacity = max_batch
        self._sizes = buckets(max_batch)
        self._graphs = {key: _Batches(graph, session) for key, (graph, session) in graphs.items()}
        self._clock = clock
        self._step_seconds = {key: metrics.step_seconds.labels(name, key) for key in graphs}
        self._batch_rows = {key: metrics.batch_rows.labels(name, key) for key in graphs}

    def admit(self, row: TaskRow) -> None:
        """Nothing to prepare: a row keeps no state between steps."""

    def release(self, rows: Sequence[TaskRow], live: int) -> None:
        """Nothing to keep."""

    def move(self, source: int, target: int) -> None:
        """Nothing to move."""

    def step(self, rows: Sequence[TaskRow]) -> list[tuple[TaskRow, Done]]:
        """Run every row, rows of one graph together; what has another graph to go through stays.

        Raises RowsFailed of those that fail alone as well: a row that no run survives takes no others with it.
        """
        results: list[tuple[TaskRow, Result]] = []
        failures: dict[TaskRow, Exception] = {}
        for key, batches in self._graphs.items():
            groups: dict[Sizes, list[TaskRow]] = {}
            for row in rows:
                if row.work.graph == key and not row.leaving:
                    groups.setdefault(batches.sizes(row.work), []).append(row)
            for sizes, group in groups.items():
                most = batches.most(sizes)
                for first in range(0, len(group), most):
                    results += self._run(key, batches, group[first : first + most], sizes, failures)
        if failures:
            raise RowsFailed(list(failures)) from next(iter(failures.values()))
        return [(row, done) for row, result in results if (done := _moved_on(row, result))]

    def _run(
        self,
        key: str,
        batches: "_Batches",
        group: Sequence[TaskRow],
        sizes: Sizes,
        failures: dict[TaskRow, Exception],
    ) -> list[tuple[TaskRow, Result]]:
        size = next(size for size in self._sizes if size >= len(group))
        began = self._clock()
        try:
            results = batches.run([row.work for row in group], size, sizes)
        except (BrokenGraph, RunFailed) as error:
            if len(group) == 1:
                failures[group[0]] = error
                return []
            half = len(group) // 2
            return [
                each
                for part in (group[:half], group[half:])
                for each in self._run(key, batches, part, sizes, failures)
            ]
        self._step_seconds[key].observe(self._clock() - began)
        self._batch_rows[key].observe(len(group))
        return list(zip(group, results, strict=True))


def _moved_on(row: TaskRow, result: Result) -> Done | None:
    """What is done; None where it goes on to its next task."""
    if row.work.then is not None:
        row.work = row.work.then(result)
        return None
    row.done = True
    return row.work.place, result


class _Batches:
    """One graph's arrays and IO bindings, a set for each bucket and, where more than the batch varies, for each shape of rows."""

    def __init__(self, graph: Graph, session: Session) -> None:
        self._graph = graph
        self._session = session
        self._bound: dict[tuple[int, Sizes], tuple[dict[str, Array], dict[str, Array], Binding]] = {}
        self._varying = {
            size: (tensor.role, place)
            for tensor in graph.inputs
            for place, size in enumerate(tensor.shape[1:])
            if isinstance(size, str)
        }
        for size in {size for tensor in graph.outputs for size in tensor.shape[1:]}:
            if isinstance(size, str) and size not in self._varying:
                raise BrokenGraph(f"no input has the size {size!r} of an output")
        if not self._varying:
            self._bucket(1, ())  # what cannot be bound is refused when the model is loaded

    def sizes(self, task: Task) -> Sizes:
        """What of the graph's shapes varies, as this task has it."""
        return tuple(task.feeds[role].shape[place] for role, place in self._varying.values())

    def most(self, sizes: Sizes) -> int:
        """Rows in one run: what the graph says, and where they vary in shape, what fits into memory kept for each shape."""
        most = self._graph.rows or sys.maxsize
        if not self._varying:
            return most
        known = dict(zip(self._varying, sizes, strict=True))
        tensors = (*self._graph.inputs, *self._graph.outputs)
        return min(most, max(1, _NUMBERS // max(math.prod(_shape(each.shape, known)) for each in tensors)))

    def run(self, tasks: Sequence[Task], size: int, sizes: Sizes) -> list[Result]:
        """Results in order. Rows of padding compute on what the last run left there."""
        inputs, outputs, binding = self._bucket(size, sizes)
        for role, array in inputs.items():
            for place, task in enumerate(tasks):
                _put(array, place, task.feeds[role])
        binding.run()
        taken = {
            role: _copied(outputs[role][: len(tasks)]) for role in {r for task in tasks for r in task.outputs}
        }
        return [{role: taken[role][place] for role in task.outputs} for place, task in enumerate(tasks)]

    def _bucket(self, size: int, sizes: Sizes) -> tuple[dict[str, Array], dict[str, Array], Binding]:
        if (size, sizes) not in self._bound:
            if self._varying and len(self._bound) == _SHAPES:
                del self._bound[next(iter(self._bound))]
            known = dict(zip(self._varying, sizes, strict=True))
            inputs, outputs = (
                {t.role: np.zeros((size, *_shape(t.shape, known)), t.dtype) for t in tensors}
                for tensors in (self._graph.inputs, self._graph.outputs)
            )
            binding = self._session.bind(
                {t.name: inputs[t.role] for t in self._graph.inputs},
                {t.name: outputs[t.role] for t in self._graph.outputs},
            )
            self._bound[size, sizes] = inputs, outputs, binding
        return self._bound[size, sizes]


def _copied(rows: Array) -> list[Array]:
    """Small rows share a copy: whoever keeps one keeps all. Large ones have their own."""
    if rows[0].nbytes > _SHARED:
        return [row.copy() for row in rows]
    return list(np.frombuffer(bytearray(rows.data), rows.dtype).reshape(rows.shape))


def _put(rows: Array, place: int, row: Array) -> None:
    """`rows[place] = row` by the buffer: numpy lets go of the interpreter, and waits for the event loop to give it back."""
    like = row.shape == rows.shape[1:] and row.dtype == rows.dtype
    if like and row.ndim and row.size and row.flags.c_contiguous:
        rows[place].data.cast("B")[:] = row.data.cast("B")
    else:
        rows[place] = row


def _shape(shape: tuple[int | str, ...], known: Mapping[str, int]) -> tuple[int, ...]:
    """Sizes behind the batch dimension."""
    return tuple(size if isinstance(size, int) else known[size] for size in shape[1:])
