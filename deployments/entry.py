"""How a request's rows enter an engine, with the request's own words where they cannot."""

from collections.abc import Sequence
from typing import Any

from deployments.engine import Engine
from deployments.errors import BadRequest, DeadlineExceeded
from deployments.messages import Complete, Decode, Draw, Interpolate, Request
from deployments.rows import Event, Row, Ticket, Work


def submit(
    engine: Engine[Work, Event],
    request: Request,
    works: Sequence[Work],
    costs: Sequence[int] | None = None,
    **order: Any,
) -> tuple[Ticket[Event], list[Row[Work, Event]]]:
    """Queue a request's rows for as long as it may take."""
    seconds = request.timeout_seconds
    try:
        ticket, rows = engine.submit(works, costs=costs, timeout_seconds=seconds, **order)
    except BadRequest as error:
        error.param = _rows_field(request)
        raise
    late = DeadlineExceeded("The time limit passed before the answer was complete.")
    ticket.expire_after(seconds, late)
    return ticket, rows


def _rows_field(request: Request) -> str:
    """The field that says how many rows a request has."""
    match request:
        case Complete():
            return "prompt" if len(request.prompts) > 1 else "best_of" if request.best_of else "n"
        case Draw():
            return "n"
        case Interpolate():
            return "steps"
        case Decode():
            return "latents"
    return "input"
