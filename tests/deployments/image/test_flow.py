import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.errors import BadRequest, ModelFault, StepFailed
from deployments.image.flow import Shapes, _Batches
from deployments.image.painting import Condition, Original
from deployments.messages import Tokenize
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.errors import RunFailed
from tests.deployments.image.conftest import Easel, OpenEasel, Request, finals, same

MODELS = ("tiny-flow", "half-flow", "epsilon-diffusion", "v-prediction-diffusion")


# -- what a picture is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
async def test_a_picture_is_what_a_loop_around_the_graph_makes(easel: OpenEasel, name: str) -> None:
    model = easel(name)
    for solver in model.painter.denoise.solvers:
        for guidance in (1.0, 3.5):
            works = model.request(1, steps=5, guidance=guidance, solver=solver, seed=9, n=2)
            (latents,) = await model.paint(works)
            assert same(latents, [model.by_hand(work) for work in works])
            assert latents[0].shape == (3, 8, 8)
            assert latents[0].dtype == np.float32


@pytest.mark.parametrize("name", MODELS)
async def test_a_picture_is_the_same_alone_and_among_neighbours(easel: OpenEasel, name: str) -> None:
    """Sixteen with other steps, guidance, solvers, seeds and classes."""
    model = easel(name, capacity=16)
    solvers = model.painter.denoise.solvers
    requests = [
        model.request(
            i % 3,
            steps=1 + 3 * i % 11,
            guidance=(1.0, 1.5, 7.0)[i % 3],
            solver=solvers[i % len(solvers)],
            seed=i,
        )
        for i in range(16)
    ]
    together = await model.paint(*requests)
    for works, latents in zip(requests, together, strict=True):
        (alone,) = await model.paint(works)
        assert same(latents, alone)
    assert len({latents[0].tobytes() for latents in together}) == 16


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),  # the step it joins at
            st.integers(1, 9),
            st.sampled_from([1.0, 2.0, 4.5]),
            st.sampled_from(["euler", "heun"]),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=10,
    ),
    st.integers(1, 6),
)
def test_rows_join_and_leave_between_steps(
    easel: OpenEasel, drawn: list[tuple[int, int, float, str, int]], capacity: int
) -> None:
    model = easel(capacity=capacity)
    requests = [
        (at, model.request(i % 3, steps=steps, guidance=guidance, solver=solver, seed=i, n=n))
        for i, (at, steps, guidance, solver, n) in enumerate(drawn)
    ]

    async def arrive() -> list[list[np.ndarray]]:
        tickets = {}
        for step in range(200):
            for i, (at, works) in enumerate(requests):
                if at == step:
                    tickets[i] = model.submit(works)[0]
            await model.step()
            if step > 6 and not model.busy:
                break
        return [await finals(tickets[i], len(works)) for i, (_, works) in enumerate(requests)]

    for latents, (_, works) in zip(asyncio.run(arrive()), requests, strict=True):
        assert same(latents, [model.by_hand(work) for work in works])


async def test_each_picture_of_a_request_has_noise_of_its_own(easel: OpenEasel) -> None:
    model = easel()
    (latents,) = await model.paint(model.request(n=4, seed=3))
    assert len({latent.tobytes() for latent in latents}) == 4
    (first,) = await model.paint(model.request(n=1, seed=3))
    assert same(first, latents[:1])


async def test_conditions_and_guidance_change_the_picture(easel: OpenEasel) -> None:
    model = easel()
    drawn = await model.paint(
        *(model.request(label, seed=1) for label in (0, 1)),
        *(model.request(0, seed=1, guidance=guidance) for guidance in (2.0, 4.0)),
        model.request(0, seed=1, steps=5),
        model.request(0, seed=1, solver="heun"),
    )
    assert len({latents[0].tobytes() for latents in drawn}) == 6


async def test_without_a_condition_to_leave_there_is_nothing_to_guide(easel: OpenEasel) -> None:
    model = easel()
    works = model.painter.paintings(model.label(0), guidance=4.0)
    assert works[0].cost == model.request()[0].cost
    (latents,) = await model.paint(works)
    assert same(latents, [model.by_hand(model.request()[0])])


# -- how it runs ----------------------------------------------------------------------------------------------------------


async def test_one_run_a_step_whatever_step_each_row_is_on(easel: OpenEasel) -> None:
    model = easel()
    await model.paint(
        model.request(steps=8), model.request(steps=3, guidance=2.0), model.request(steps=5, n=2)
    )
    assert model.value("step_seconds_count") == 8
    assert model.value("batch_rows_sum") == 8 + 2 * 3 + 2 * 5


@pytest.mark.parametrize(("solver", "runs"), [("euler", 6), ("heun", 11)])
async def test_evaluations_of_a_solver(easel: OpenEasel, solver: str, runs: int) -> None:
    model = easel()
    works = model.request(steps=6, solver=solver)
    await model.paint(works)
    assert model.value("step_seconds_count") == runs
    assert works[0].cost == 64 * runs


async def test_a_short_request_leaves_a_long_one_behind(easel: OpenEasel) -> None:
    model = easel()
    long, _ = model.submit(model.request(steps=32))
    for _ in range(5):
        await model.step()
    short, _ = model.submit(model.request(1, steps=4))
    for _ in range(4):
        await model.step()
    await finals(short, 1)
    assert not long.unread
    assert len(model.engine.scheduler.live) == 1


async def test_bindings_are_kept_for_each_size_of_run(easel: OpenEasel) -> None:
    model = easel()
    await model.paint(model.request(steps=3), model.request(steps=6, guidance=2.0))
    (batch,) = model.program._batches.values()
    assert sorted(batch._bindings) == [2, 3]
    before = dict(batch._bindings)
    await model.paint(model.request(steps=3), model.request(steps=6, guidance=2.0))
    assert before == batch._bindings


async def test_few_sizes_of_run_where_each_is_captured(easel: OpenEasel) -> None:
    """Rows of padding compute on what was there before, and are nobody's picture."""
    model = easel()
    model.denoise.captures = True
    requests = [model.request(i % 3, steps=2 + i, seed=i, guidance=1.0 + i % 2) for i in range(5)]
    drawn = await model.paint(*requests)
    (batch,) = model.program._batches.values()
    assert sorted(batch._bindings) == [1, 3, 4, 6, 8]
    for latents, works in zip(drawn, requests, strict=True):
        assert same(latents, [model.by_hand(work) for work in works])


async def test_sizes_run_apart_and_come_out_as_they_are_asked(easel: OpenEasel) -> None:
    model = easel("sized-flow")
    square = model.request(steps=4, guidance=2.0)
    wide = model.request(1, steps=4, size=(16, 8), n=2)
    small, large = await model.paint(square, wide)
    assert [latent.shape for latent in large] == [(3, 8, 16)] * 2
    assert same(small, [model.by_hand(work) for work in square])
    assert same(large, [model.by_hand(work) for work in wide])
    assert model.value("step_seconds_count") == 8
    assert wide[0].cost == 2 * 4 * 64


async def test_memory_of_a_few_shapes_is_kept(easel: OpenEasel) -> None:
    model = easel("text-flow")
    for letters in range(1, 15):
        await model.paint(model.painter.paintings(model.text("a" * letters), steps=1))
    assert len(model.program._batches) == 8


# -- conditions -----------------------------------------------------------------------------------------------------------


async def test_a_text_is_read_once_a_request(easel: OpenEasel) -> None:
    model = easel("text-flow")
    reads: list[Condition] = []
    reader = model.program._reader
    assert reader is not None
    read = reader.read
    reader.read = lambda condition: reads.append(condition) or read(condition)  # type: ignore[method-assign, func-returns-value]
    prompt, nothing = model.text("a red door"), model.text(" ")
    works = model.painter.paintings(prompt, nothing, n=5, guidance=2.0, steps=6)
    (latents,) = await model.paint(works)
    assert reads == [prompt, nothing]
    assert len({latent.tobytes() for latent in latents}) == 5


async def test_texts_of_any_length_share_a_batch(easel: OpenEasel) -> None:
    """Those of one length share a run; what a picture is does not depend on who does."""
    model = easel("text-flow")

    def request(text: str) -> Request:
        return model.painter.paintings(model.text(text), model.text("-"), guidance=3.0, seed=5)

    texts = ("sky", "sea", "a door", "-", "ladder")
    together = await model.paint(*(request(text) for text in texts))
    for text, latents in zip(texts, together, strict=True):
        (alone,) = await model.paint(request(text))
        assert same(latents, alone)
    assert len({latents[0].tobytes() for latents in together}) == 5


# -- beginnings and previews ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-flow", "epsilon-diffusion"])
@pytest.mark.parametrize("skipped", [0, 3, 5])
async def test_a_picture_may_begin_from_another(easel: OpenEasel, name: str, skipped: int) -> None:
    model = easel(name)
    original = np.full((3, 8, 8), 0.5, np.float32)
    for solver in model.painter.denoise.solvers:
        (plain,) = model.request(steps=6, solver=solver, seed=2)
        work = replace(plain, original=Original(original), skipped=skipped)
        runs = model.value("step_seconds_count")
        ((latent,),) = await model.paint([work])
        assert model.value("step_seconds_count") - runs == work.cost / 64
        assert same([latent], [model.by_hand(work)])
        stage = work.plan.stages[work.first]
        assert stage.step == skipped
        signal, noise = np.float32(stage.noised[0]), np.float32(stage.noised[1])
        drawn = plain.begin() / np.float32(plain.plan.start)
        assert np.allclose(work.begin(), signal * original + noise * drawn, atol=1e-6)


@pytest.mark.parametrize("solver", ["euler", "heun"])
async def test_previews_come_between_and_cost_no_run(easel: OpenEasel, solver: str) -> None:
    model = easel()
    works = model.request(steps=8, previews=3, solver=solver)
    ticket, _ = model.submit(works)
    while model.busy:
        await model.step()
    events = list(ticket.unread)
    assert [(event.step, event.final) for event in events] == [
        (2, False),
        (4, False),
        (6, False),
        (8, True),
    ]
    assert model.value("step_seconds_count") == len(works[0].plan.stages)
    # They come nearer.
    far = [float(np.abs(event.latent - events[-1].latent).mean()) for event in events]
    assert far == sorted(far, reverse=True)
    assert same([events[-1].latent], [model.by_hand(works[0])])


# -- accounting, cancellation, failures -------------------------------------------------------------------------------------


async def test_rows_are_charged_in_pixel_steps(easel: OpenEasel) -> None:
    model = easel()
    works = model.request(steps=4, guidance=2.0)
    assert works[0].cost == 64 * 4 * 2
    _, (row,) = model.submit(works)
    spent = []
    while model.busy:
        await model.step()
        spent.append(row.spent)
    assert spent == [128, 256, 384, 512]
    assert row.steps == 4


async def test_what_is_cancelled_leaves_at_the_next_step(easel: OpenEasel) -> None:
    model = easel(capacity=3)
    requests = [model.request(i, steps=10, seed=i) for i in range(3)]
    tickets = [model.submit(works)[0] for works in requests]
    waiting = model.submit(model.request(steps=2, seed=8))[0]
    for _ in range(4):
        await model.step()
    model.engine.cancel(tickets[0])
    rows = model.value("batch_rows_sum")
    await model.step()
    assert model.value("batch_rows_sum") - rows == 2
    assert len(model.engine.scheduler.live) == 2
    while model.busy:
        await model.step()
    for ticket, works in zip(
        [*tickets[1:], waiting], [*requests[1:], model.request(steps=2, seed=8)], strict=True
    ):
        assert same(await finals(ticket, 1), [model.by_hand(works[0])])
    assert not tickets[0].unread
    assert model.program._canvases == [None] * 3


async def test_a_deadline_ends_a_picture(easel: OpenEasel) -> None:
    model = easel()
    ticket, _ = model.submit(model.request(steps=10))
    ticket.expire_after(0.0, TimeoutError())
    await model.step()
    await asyncio.sleep(0.01)
    await model.step()
    assert not model.busy
    with pytest.raises(TimeoutError):
        await ticket.next()


def _break(easel: Easel, shape: tuple[int, ...]) -> None:
    """Runs with latents of this shape fail once."""
    whole = easel.program._batch

    def batch(shapes: Shapes) -> _Batches:
        if dict(shapes)["latent"] == shape:
            easel.program._batch = whole  # type: ignore[method-assign]
            raise RunFailed("out of memory")
        return whole(shapes)

    easel.program._batch = batch  # type: ignore[method-assign]


async def test_a_failed_run_ends_its_rows_and_nobody_elses(easel: OpenEasel) -> None:
    """Nobody has moved in that step: the others go on as if nothing had been."""
    model = easel("sized-flow")
    wide = model.request(1, steps=6, size=(16, 8), seed=4, n=2)
    going, _ = model.submit(wide)
    for _ in range(2):
        await model.step()
    broken, _ = model.submit(model.request(steps=6, n=3))
    _break(model, (3, 8, 8))
    model.engine.start()
    try:
        with pytest.raises(StepFailed):
            await broken.next()
        assert same(await finals(going, 2), [model.by_hand(work) for work in wide])
        assert model.engine.faults == 0
    finally:
        model.engine.stop()


async def test_numbers_that_are_not_finite_are_no_picture(easel: OpenEasel) -> None:
    model = easel()
    (work,) = model.request(steps=2)
    bad = replace(work, given=np.full((3, 8, 8), np.nan, np.float32))
    good, _ = model.submit(model.request(steps=3, seed=1))
    ticket, _ = model.submit([bad])
    while model.busy:
        await model.step()
    with pytest.raises(ModelFault, match="not finite"):
        await ticket.next()
    assert same(await finals(good, 1), [model.by_hand(model.request(steps=3, seed=1)[0])])


async def test_a_condition_that_is_missing_fails_its_row(easel: OpenEasel) -> None:
    model = easel()
    ticket, _ = model.submit(model.painter.paintings(Condition({})))
    model.engine.start()
    try:
        with pytest.raises(StepFailed):
            await ticket.next()
        assert model.engine.alive
    finally:
        model.engine.stop()


async def test_noise_is_drawn_when_a_picture_begins(easel: OpenEasel) -> None:
    """However many wait, they take no memory for it."""
    model = easel(capacity=2)
    model.submit(model.request(n=20, steps=3))
    await model.step()
    assert sum(canvas is not None for canvas in model.program._canvases) == 2
    assert len(model.engine.scheduler.waiting) == 18


async def test_a_studio_holds_such_a_model_beside_the_others(flows: Path) -> None:
    """What its routes are for comes with them; it is listed, and nothing else is asked of it."""
    studio = open_studio(
        HostConfig(store=str(flows), device="cpu", models=("tiny-flow",)), Metrics(CollectorRegistry())
    )
    try:
        assert [card.family for card in await studio.cards()] == ["flow"]
        assert studio.healthy()
        with pytest.raises(BadRequest):
            await studio.call(Tokenize("tiny-flow", "circle"))
    finally:
        studio.close()


async def test_a_short_picture_passes_long_ones_that_lose_a_quarter_at_most(easel: OpenEasel) -> None:
    """Bytes are those of each alone, whoever went first."""
    model = easel()
    model.program._turns.measure = lambda *_: None  # type: ignore[method-assign]  # a run of few rows is no dearer
    long = model.request(steps=32, n=4, seed=1)
    ticket, rows = model.submit(long)
    for _ in range(4):
        await model.step()
    shorts = []
    for seed in range(4):
        works = model.request(steps=4, seed=seed)
        waiting, (row,) = model.submit(works)
        while not row.done:
            await model.step()
        assert row.steps == 4
        shorts.append((works, waiting))
    while model.busy:
        await model.step()
    assert [row.steps for row in rows] == [32 + 8] * 4
    assert same(await finals(ticket, 4), [model.by_hand(work) for work in long])
    for works, waiting in shorts:
        assert same(await finals(waiting, 1), [model.by_hand(works[0])])
