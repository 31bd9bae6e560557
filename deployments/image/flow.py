"""The program of models that make pictures in steps: one run of the graph over all live rows, whatever step each is on.

A guided row is two rows of the run: what it shows, and what it is guided away from. Rows of another size, or with
conditions of another length, are a run of their own. What a row is does not depend on its neighbours: its noise, its times
and its arithmetic are its own, and the graph's rows are independent.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from deployments.errors import ModelFault
from deployments.image.painting import CONDITION, DENOISE, Condition, Painted, Painting, PaintingRow
from deployments.image.solvers import advance, foretold
from deployments.image.turns import Turn, Turns
from deployments.metrics import Metrics
from deployments.oneshot import buckets
from deployments.rows import RowsFailed
from model_store.errors import BrokenGraph, RunFailed
from model_store.manifest import Graph, Manifest
from model_store.session import Array, Binding, Session

# A picture stands back for others in at most this part of its steps.
_PATIENCE: Final = 4
# Shapes of rows whose memory is kept.
_SHAPES: Final = 8

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(eq=False, slots=True)
class _Canvas:
    """What a live row keeps between steps."""

    work: Painting
    latent: Array
    stage: int
    memory: Array | None = None
    passed: int = 0  # steps in which others went first

    @property
    def turn(self) -> Turn:
        """What it has to do with the choice of a step's rows."""
        stages = len(self.work.plan.stages)
        whole = stages - self.work.first
        return Turn(whole, stages - self.stage, self.work.pixel_steps, whole // _PATIENCE - self.passed)


@dataclass(eq=False, slots=True)
class _Lane:
    """One row of a run: its live row, its inputs by role, and the graph's answer."""

    row: PaintingRow
    feeds: dict[str, Array]
    output: Array

    @property
    def pixels(self) -> int:
        """Of the picture that is made."""
        return self.row.work.pixels

    @property
    def shapes(self) -> Shapes:
        return tuple((role, array.shape) for role, array in self.feeds.items())


class Flow:
    """Denoises pictures of one model together. Belongs to the engine's thread."""

    def __init__(
        self,
        manifest: Manifest,
        denoise: Session,
        metrics: Metrics,
        *,
        capacity: int,
        condition: Session | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`condition`: where the package has a graph of that name."""
        if manifest.image is None or manifest.image.denoise is None:
            raise ValueError(f"{manifest.name} does not make pictures in steps")
        self.capacity = capacity
        self._graph = manifest.graphs[DENOISE]
        self._prediction = manifest.image.denoise.prediction
        self._session = denoise
        self._reader = _Reader(manifest.graphs[CONDITION], condition) if condition else None
        self._canvases: list[_Canvas | None] = [None] * capacity
        self._batches: dict[Shapes, _Batches] = {}
        self._turns = Turns()
        self._clock = clock
        self._step_seconds = metrics.step_seconds.labels(manifest.name, DENOISE)
        self._batch_rows = metrics.batch_rows.labels(manifest.name, DENOISE)

    # -- rows come and go --------------------------------------------------------------------------------------------

    def admit(self, row: PaintingRow) -> None:
        """Begin a picture. Noise is drawn only now: what waits takes no memory for it."""
        self._canvases[row.slot] = _Canvas(row.work, row.work.begin(), row.work.first)

    def release(self, rows: Sequence[PaintingRow], live: int) -> None:  # noqa: ARG002 - as the engine calls it
        """Nothing of a picture is worth keeping."""
        for row in rows:
            self._canvases[row.slot] = None

    def move(self, source: int, target: int) -> None:
        """A row has moved to another slot."""
        self._canvases[target], self._canvases[source] = self._canvases[source], None

    # -- one step ----------------------------------------------------------------------------------------------------

    def step(self, rows: Sequence[PaintingRow]) -> list[tuple[PaintingRow, Painted]]:
        """Evaluate the model once for every row that has its turn, and move each on. Nobody moves where a run fails."""
        working = self._chosen([row for row in rows if not row.leaving])
        for row in working:
            self._prepare(row)
        lanes = [lane for row in working for lane in self._lanes(row)]
        groups: dict[Shapes, list[_Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.shapes, []).append(lane)
        for shapes, group in groups.items():
            self._run(shapes, group)
        answers: dict[int, list[Array]] = {}
        for lane in lanes:
            answers.setdefault(lane.row.slot, []).append(lane.output)
        return [event for row in working for event in self._advance(row, *answers[row.slot])]

    def _chosen(self, rows: list[PaintingRow]) -> list[PaintingRow]:
        places = set(self._turns.choose([self._canvas(row).turn for row in rows]))
        for place, row in enumerate(rows):
            self._canvas(row).passed += place not in places
        return [row for place, row in enumerate(rows) if place in places]

    def _prepare(self, row: PaintingRow) -> None:
        """Read a request's conditions, once, with the first of its rows."""
        for condition in (row.work.condition, row.work.without):
            if condition is not None and condition.ready is None:
                try:
                    condition.ready = self._reader.read(condition) if self._reader else condition.feeds
                except (BrokenGraph, RunFailed) as error:
                    raise RowsFailed([row]) from error

    def _lanes(self, row: PaintingRow) -> list[_Lane]:
        canvas = self._canvas(row)
        stage = canvas.work.plan.stages[canvas.stage]
        latent = canvas.latent if stage.scale == 1 else np.float32(stage.scale) * canvas.latent
        own: dict[str, Array] = {"latent": latent, "time": np.asarray(stage.time)}
        work = canvas.work
        given = [work.condition.ready, work.without.ready if work.without else None]
        return [_Lane(row, own | dict(ready), latent) for ready in given if ready is not None]

    def _run(self, shapes: Shapes, lanes: Sequence[_Lane]) -> None:
        began = self._clock()
        try:
            self._batch(shapes).run(lanes)
        except (BrokenGraph, RunFailed) as error:
            raise RowsFailed(list({lane.row.slot: lane.row for lane in lanes}.values())) from error
        seconds = self._clock() - began
        self._turns.measure(sum(lane.pixels for lane in lanes), seconds)
        self._step_seconds.observe(seconds)
        self._batch_rows.observe(len(lanes))

    def _batch(self, shapes: Shapes) -> "_Batches":
        if shapes not in self._batches:
            if len(self._batches) == _SHAPES:
                del self._batches[next(iter(self._batches))]
            self._batches[shapes] = _Batches(
                self._graph, self._session, self._prediction, dict(shapes), 2 * self.capacity
            )
        return self._batches[shapes]

    def _advance(
        self, row: PaintingRow, output: Array, without: Array | None = None
    ) -> list[tuple[PaintingRow, Painted]]:
        canvas = self._canvas(row)
        work, before = canvas.work, canvas.latent
        if without is not None:
            output = without + np.float32(work.guidance) * (output - without)
        stage = work.plan.stages[canvas.stage]
        latent, canvas.memory = advance(stage, before, output, canvas.memory)
        canvas.stage += 1
        canvas.latent = work.kept(latent, canvas.stage)
        row.spent += work.pixel_steps
        if canvas.stage == len(work.plan.stages):
            return self._finish(row, canvas)
        if stage.step + 1 in work.previews and work.plan.stages[canvas.stage].step > stage.step:
            shown = Painted(work.place, stage.step + 1, foretold(stage, before, output), final=False)
            return [(row, shown)]
        return []

    def _finish(self, row: PaintingRow, canvas: _Canvas) -> list[tuple[PaintingRow, Painted]]:
        row.done = True
        if not np.isfinite(canvas.latent).all():
            row.ticket.fail_soon(ModelFault("The model made numbers that are not finite.", code="not_finite"))
            return []
        return [(row, Painted(canvas.work.place, canvas.work.steps, canvas.latent, final=True))]

    def _canvas(self, row: PaintingRow) -> _Canvas:
        canvas = self._canvases[row.slot]
        if canvas is None:
            raise ValueError(f"slot {row.slot} is empty")
        return canvas


class _Batches:
    """Inputs and output of the graph for rows of like shapes: one memory, and a binding to its start for each size of run."""

    def __init__(
        self,
        graph: Graph,
        session: Session,
        prediction: str,
        shapes: Mapping[str, tuple[int, ...]],
        most: int,
    ) -> None:
        _check(graph, shapes)
        self._session = session
        self._inputs: dict[str, Array] = {
            each.role: np.zeros((most, *shapes[each.role]), each.dtype) for each in graph.inputs
        }
        self._names = {each.role: each.name for each in graph.inputs}
        output = next(each for each in graph.outputs if each.role == prediction)
        self._output_name = output.name
        self._output: Array = np.zeros((most, *shapes["latent"]), output.dtype)
        self._bindings: dict[int, Binding] = {}
        # On a CPU a padded row costs as much as a live one; a captured graph is worth keeping.
        self._sizes = buckets(most) if session.captures else list(range(1, most + 1))

    def run(self, lanes: Sequence[_Lane]) -> None:
        """Answer all lanes. Raises RunFailed."""
        for role, array in self._inputs.items():
            for place, lane in enumerate(lanes):
                array[place] = lane.feeds[role]
        self._binding(next(size for size in self._sizes if size >= len(lanes))).run()
        for place, lane in enumerate(lanes):
            lane.output = self._output[place].astype(np.float32)

    def _binding(self, size: int) -> Binding:
        if size not in self._bindings:
            self._bindings[size] = self._session.bind(
                {self._names[role]: array[:size] for role, array in self._inputs.items()},
                {self._output_name: self._output[:size]},
                capture=self._session.captures,
            )
        return self._bindings[size]


class _Reader:
    """The graph `condition`: reads what a request shows, one request a run, so that nothing depends on others."""

    def __init__(self, graph: Graph, session: Session) -> None:
        self._graph, self._session = graph, session

    def read(self, condition: Condition) -> dict[str, Array]:
        """What the graph makes of a condition, and what of it the graph does not read. Raises RunFailed."""
        _check(self._graph, condition.feeds)
        taken = {each.role: each for each in self._graph.inputs}
        feeds = {
            each.name: np.asarray(condition.feeds[role], each.dtype)[None] for role, each in taken.items()
        }
        made = self._session.run(feeds, [each.name for each in self._graph.outputs])
        outputs = {each.role: array[0] for each, array in zip(self._graph.outputs, made, strict=True)}
        return {role: feed for role, feed in condition.feeds.items() if role not in taken} | outputs


def _check(graph: Graph, given: Mapping[str, object]) -> None:
    missing = [each.role for each in graph.inputs if each.role not in given]
    if missing:
        raise BrokenGraph(f"nothing is given for the graph's inputs {', '.join(missing)}")
