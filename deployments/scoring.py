"""Answers what is about scores: scoring, calibrating, and looking after calibrations. Watches for drift on the way."""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Final

import numpy as np

from deployments.answering import answer, run
from deployments.desk import Desk
from deployments.errors import DeadlineExceeded
from deployments.messages import Calibrate, Calibration, Calibrations, Output, Reply, Score, Usage
from deployments.model import OneShotModel
from deployments.oneshot import Done, Result, Task
from deployments.reconstruction.calibrations import Chosen
from deployments.reconstruction.items import Program
from deployments.reconstruction.scores import Scores, scores_of
from deployments.rows import Row, timings

# Rows of a calibration that wait at once: others' requests come between them.
_PIECE: Final = 128


class Scorer:
    """For all models of one process that score."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def score(self, model: OneShotModel, scores: Scores, program: Program, request: Score) -> Reply:
        """Scores of a request's items, by one calibration from the beginning to the end."""
        if scores.calibrations.stale(request.calibration):
            await self._desk.beside(scores.calibrations.refresh, request.calibration)
        chosen = scores.choose(request)
        combined: list[Result] = []

        def finish(request: Score, results: list[Result]) -> tuple[Output, ...]:
            combined.extend(scores.combined(chosen.score, results))
            return scores.finish(request, chosen, program, combined)

        reply = await answer(
            self._desk,
            model,
            request,
            lambda r: scores.prepare(r, chosen, program),
            finish,
            score=chosen.score,
            calibration=chosen.calibrated.id,
            method=_method(request, chosen),
        )
        self._watch(model, scores, chosen, reply.outputs, combined)
        return reply

    async def calibrate(
        self, model: OneShotModel, scores: Scores, program: Program, request: Calibrate
    ) -> Reply:
        """Score items, piece by piece, and keep what becomes of it."""
        began = perf_counter()
        name, tasks = await self._desk.beside(scores.calibrating, request, program)
        results: list[Result] = []
        rows: list[Row[Task, Done]] = []
        for first in range(0, len(tasks), _PIECE):
            piece = [replace(task, place=k) for k, task in enumerate(tasks[first : first + _PIECE])]
            done, ran = await run(self._desk, model, _later(request, perf_counter() - began), piece)
            results += done
            rows += ran
        calibration = await self._desk.beside(_keep, scores, program, request, name, results)
        self._desk.metrics.items.labels(request.model).inc(len(request.items))
        return _of(model, calibration, rows, len(request.items))

    async def keep(self, model: OneShotModel, scores: Scores, request: Calibrations) -> Reply:
        """List, find, choose or delete calibrations."""
        calibrations = scores.calibrations
        if request.act == "list":
            found = await self._desk.beside(calibrations.all)
            return Reply((), model.manifest.version, calibrations=found)
        acts = {"find": calibrations.find, "choose": calibrations.make_default, "delete": calibrations.delete}
        return _of(model, await self._desk.beside(acts[request.act], request.id))

    def _watch(
        self,
        model: OneShotModel,
        scores: Scores,
        chosen: Chosen,
        outputs: Sequence[Output],
        results: Sequence[Result],
    ) -> None:
        given = self._desk.metrics.scores.labels(model.manifest.name, chosen.score)
        given.observe_all([output.score or 0.0 for output in outputs])
        values = scores_of(chosen.score, results)
        latents = [np.ravel(result["latent"]) for result in results if "latent" in result]
        arrived = model.drift.observe(chosen.score, scores.calibrations.usual(chosen.score), values, latents)
        if arrived is not None:
            self._desk.beside(model.drift.compare, arrived)  # nobody waits for it


def _keep(
    scores: Scores, program: Program, request: Calibrate, name: str, results: Sequence[Result]
) -> Calibration:
    kept = scores.calibrated(request, name, program, scores.combined(name, results))
    return scores.calibrations.add(kept, default=request.default)


def _method(request: Score, chosen: Chosen) -> str:
    if request.false_discovery_rate is not None:
        return "false_discovery_rate"
    return "request" if request.threshold is not None else chosen.calibrated.method


def _of(
    model: OneShotModel, calibration: Calibration, rows: Sequence[Row[Task, Done]] = (), items: int = 0
) -> Reply:
    reply = Reply((), model.manifest.version, usage=Usage(items=items), calibrations=(calibration,))
    return replace(reply, timings=timings(rows)) if rows else reply


def _later(request: Calibrate, seconds: float) -> Calibrate:
    """The same request when so much of its time is gone. Raises DeadlineExceeded when all is."""
    if request.timeout_seconds is None:
        return request
    left = request.timeout_seconds - seconds
    if left <= 0:
        raise DeadlineExceeded("The time limit passed before the answer was complete.")
    return replace(request, timeout_seconds=left)
