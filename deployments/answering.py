"""How a request to a model of one step is answered: prepare, run, finish. Knows no kind of request."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from deployments.desk import Desk
from deployments.effort import OneShotRequest, encodes_pictures, is_heavy
from deployments.entry import submit
from deployments.messages import Draw, Output, Reply, Request, Usage
from deployments.model import OneShotModel
from deployments.oneshot import Done, Result, Task
from deployments.rows import Row, timings


async def answer(
    desk: Desk,
    model: OneShotModel,
    request: OneShotRequest,
    prepare: Callable[[OneShotRequest], list[Task]],
    finish: Callable[[OneShotRequest, list[Result]], tuple[Output, ...]],
    **more: Any,
) -> Reply:
    """Prepare, run, finish; what may take long happens beside the event loop. The reply says `more` as well."""
    heavy, encodes = is_heavy(model, request), encodes_pictures(model, request)
    tasks = await desk.beside(prepare, request) if heavy else prepare(request)
    results, rows = await run(desk, model, request, tasks)
    began = time.perf_counter()
    aside = heavy or encodes
    outputs = await desk.beside(finish, request, results) if aside else finish(request, results)
    seconds = time.perf_counter() - began
    name = model.manifest.name
    if encodes:
        desk.metrics.encode_seconds.labels(name).observe(seconds)
    if not isinstance(request, Draw):
        desk.metrics.items.labels(name).inc(len(outputs))
    usage = Usage(items=len(outputs))
    return Reply(outputs, model.manifest.version, timings(rows, seconds), usage, **more)


async def run(
    desk: Desk, model: OneShotModel, request: Request, tasks: Sequence[Task]
) -> tuple[list[Result], list[Row[Task, Done]]]:
    """What comes of tasks, in their order, and the rows they were."""
    ticket, rows = submit(model.engine, request, tasks)
    return await desk.gather(model.engine, ticket, len(rows)), rows
