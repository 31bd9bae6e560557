import pytest

from deployments.entry import submit
from deployments.errors import BadRequest, DeadlineExceeded
from deployments.messages import (
    Classify,
    Complete,
    Decode,
    Draw,
    Embed,
    Encode,
    Interpolate,
    Reconstruct,
    Request,
    Score,
    TensorItem,
)
from tests.deployments.toys import Counting, running

ITEM = TensorItem([0.0])


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Complete("m", ("a", "b"), n=2), "prompt"),
        (Complete("m", ("a",), n=4), "n"),
        (Complete("m", ("a",), best_of=4), "best_of"),
        (Embed("m", ("a",) * 4), "input"),
        (Classify("m", ("a",) * 4), "input"),
        (Score("m", (ITEM,) * 4), "input"),
        (Reconstruct("m", (ITEM,) * 4), "input"),
        (Encode("m", (ITEM,) * 4), "input"),
        (Decode("m", ([0.0],) * 4), "latents"),
        (Interpolate("m", [0.0], [1.0], steps=4), "steps"),
        (Draw("m", n=4), "n"),
    ],
)
async def test_more_rows_than_ever_fit_are_the_fault_of_a_field(request_: Request, field: str) -> None:
    with running(Counting(1), max_waiting=2) as engine:
        with pytest.raises(BadRequest) as refused:
            submit(engine, request_, [1] * 4)
        assert (refused.value.code, refused.value.param) == ("too_many_rows", field)
        ticket, _ = submit(engine, request_, [1] * 3)
        assert [await ticket.next() for _ in range(3)] == [1, 1, 1]


async def test_a_request_takes_no_longer_than_it_may() -> None:
    program = Counting(1, paced=True)
    with running(program) as engine:
        ticket, rows = submit(engine, Draw("m", timeout_seconds=0.01), [1], [7])
        assert rows[0].cost == 7
        with pytest.raises(DeadlineExceeded, match="before the answer was complete"):
            await ticket.next()
