"""The program of models that answer in one step: rows that wait together run together, padded to a bucket.

Knows graphs and arrays, not what the arrays mean.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deployments.metrics import Metrics
from deployments.rows import Row
from model_store.errors import BrokenGraph
from model_store.manifest import Graph
from model_store.session import Array, Binding, Session


@dataclass(frozen=True, slots=True)
class Task:
    """One row's inputs, by role, without a batch dimension; `outputs` are the roles it wants back."""

    graph: str
    feeds: Mapping[str, Array]
    outputs: tuple[str, ...]
    place: int = 0  # among its request's tasks


Result = dict[str, Array]
Done = tuple[int, Result]  # the task's place, its outputs by role
TaskRow = Row[Task, Done]


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
        """Run every row to its end, rows of one graph together."""
        events: list[tuple[TaskRow, Done]] = []
        for key, batches in self._graphs.items():
            group = [row for row in rows if row.work.graph == key and not row.leaving]
            if group:
                events.extend(self._run(key, batches, group))
        return events

    def _run(self, key: str, batches: "_Batches", group: Sequence[TaskRow]) -> list[tuple[TaskRow, Done]]:
        size = next(size for size in self._sizes if size >= len(group))
        began = self._clock()
        results = batches.run([row.work for row in group], size)
        self._step_seconds[key].observe(self._clock() - began)
        self._batch_rows[key].observe(len(group))
        for row in group:
            row.done = True
        return [(row, (row.work.place, result)) for row, result in zip(group, results, strict=True)]


class _Batches:
    """One graph's arrays and IO bindings, a set for each bucket."""

    def __init__(self, graph: Graph, session: Session) -> None:
        self._graph = graph
        self._session = session
        self._bound: dict[int, tuple[dict[str, Array], dict[str, Array], Binding]] = {}
        self._bucket(1)  # what cannot be bound is refused when the model is loaded

    def run(self, tasks: Sequence[Task], size: int) -> list[Result]:
        """Results in order. Rows of padding compute on what the last run left there."""
        inputs, outputs, binding = self._bucket(size)
        for role, array in inputs.items():
            for place, task in enumerate(tasks):
                array[place] = task.feeds[role]
        binding.run()
        return [
            {role: outputs[role][place].copy() for role in task.outputs} for place, task in enumerate(tasks)
        ]

    def _bucket(self, size: int) -> tuple[dict[str, Array], dict[str, Array], Binding]:
        if size not in self._bound:
            inputs: dict[str, Array] = {
                t.role: np.zeros((size, *_fixed(t.shape)), t.dtype) for t in self._graph.inputs
            }
            outputs: dict[str, Array] = {
                t.role: np.zeros((size, *_fixed(t.shape)), t.dtype) for t in self._graph.outputs
            }
            binding = self._session.bind(
                {t.name: inputs[t.role] for t in self._graph.inputs},
                {t.name: outputs[t.role] for t in self._graph.outputs},
            )
            self._bound[size] = inputs, outputs, binding
        return self._bound[size]


def _fixed(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    """Sizes behind the batch dimension. Raises BrokenGraph where one varies: such a graph has no buckets."""
    sizes = tuple(size for size in shape[1:] if isinstance(size, int))
    if len(sizes) != len(shape) - 1:
        raise BrokenGraph(f"only the batch may vary in a graph of one step, not {list(shape)}")
    return sizes
