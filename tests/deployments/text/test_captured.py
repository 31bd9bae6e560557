"""Decodes as on CUDA, on the CPU: few sizes, padded rows, host arrays with twins, greatest lengths fixed at the first run."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.text.buckets import Buckets
from model_store import session
from model_store.device import gpus
from model_store.session import Binding
from tests import packages
from tests.deployments.text.driven import Driven, Reading
from tests.deployments.text.test_reuse import SCORED, SYSTEM, answer, random_request

Open = Callable[..., Driven]


@pytest.fixture
def load(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A model whose decodes are bound as captured graphs are: what a replay would not see must not change."""

    def load_one(name: str = "loose-attention", store: Path = tiny, **options: Any) -> Driven:
        model = Driven(store, name, **{"slots": 6, "prefix_slots": 4, **options})
        program = model.model.program
        program._step.captures = True
        program._buckets = Buckets(program.capacity, program._context, exact=False)
        program._decode_binding = watched(program, program._decode_binding)  # type: ignore[method-assign]
        return model

    def watched(program: Any, make: Callable[..., Binding]) -> Callable[..., Binding]:
        baked: dict[int, int] = {}

        def made(shape: Any) -> Binding:
            binding = make(shape)
            assert baked.setdefault(id(binding), int(program._total)) == int(program._total)
            assert program._lengths[: shape.rows].max() < program._total
            return binding

        return made

    monkeypatch.setattr(session, "_inputs_on", lambda _, opened: {node.name for node in opened.get_inputs()})
    return load_one


def batches(model: Driven) -> set[int]:
    return {shape.rows for shape, _ in model.model.program._bindings}


@pytest.mark.parametrize("name", ["loose-attention", "loose-text"])
async def test_answers_are_those_of_exact_sizes(load: Open, tiny: Path, name: str) -> None:
    model = load(name)
    asked = [(SYSTEM[i : 2 * i + 3], {**SCORED, "seed": i, "max_tokens": 5 + 3 * i}) for i in range(8)]
    readings = []
    for prompt, fields in asked:
        readings.append(model.submit(prompt, **fields))
        await model.step()
    await model.finish()
    assert batches(model) <= {1, 2, 4, 6}
    alone = Driven(tiny, name, slots=1, prefix_slots=0)
    for reading, (prompt, fields) in zip(readings, asked, strict=True):
        assert answer(reading) == answer(await alone.alone(prompt, **fields))


async def test_a_graph_as_cuda_wants_it_answers_alike(load: Open, tiny: Path, tmp_path: Path) -> None:
    """Without control flow, with a float16 cache, which holds these small numbers exactly."""
    packages.text(
        tmp_path, name="half", attention=True, context=256, sharpness=2.0, half=True, branches=False
    )
    model, exact = load("half", tmp_path), Driven(tiny, "loose-attention", slots=1, prefix_slots=0)
    asked = [(SYSTEM[i : 3 * i + 3], {**SCORED, "top_p": 0.9, "seed": i, "max_tokens": 12}) for i in range(6)]
    readings = [model.submit(prompt, **fields) for prompt, fields in asked]
    await model.finish()
    model.check_state()
    for reading, (prompt, fields) in zip(readings, asked, strict=True):
        alone = await exact.alone(prompt, **fields)
        assert reading.tokens() == alone.tokens()
        logprobs = [[score.logprob or 0 for score in each.scores()] for each in (reading, alone)]
        np.testing.assert_allclose(logprobs[0], logprobs[1], atol=0.01)


async def test_few_graphs_serve_all_lengths(load: Open) -> None:
    model = load(text={"eos_token_ids": ()})
    await model.alone("abc", max_tokens=200)
    assert len(model.model.program._bindings) == 1


async def test_padded_rows_write_nothing_that_is_kept(load: Open) -> None:
    """Three kept prefixes lie in the slots beside a batch of five, which runs as six, and beside one of three, as four."""
    model = load()
    for i in range(6):
        model.submit(SYSTEM[i : i + 30], max_tokens=1 + i, principal=str(i))
    for _ in range(10):
        await model.step()
        model.check_state()
    assert len(model.model.program._slots.prefixes) == 6
    for live in (3, 5, 1, 6):
        for i in range(live):
            model.submit(SYSTEM[::-1][i : i + 30], max_tokens=4, reuse_prefix=False)
        for _ in range(6):
            await model.step()
            model.check_state()


@pytest.mark.parametrize("seed", range(3))
async def test_random_requests_are_answered_as_with_exact_sizes(load: Open, tiny: Path, seed: int) -> None:
    chance = random.Random(100 + seed)
    model = load(slots=chance.choice((3, 5, 6)), prefix_slots=3, prefill_chunk=24)
    asked: list[tuple[Reading, tuple[int, ...], dict[str, Any]]] = []
    for _ in range(20):
        for _ in range(chance.choice((0, 1, 1, 4))):
            prompt, fields = random_request(chance)
            asked.append((model.submit(prompt, **fields), prompt, fields))
        for _ in range(chance.randint(0, 4)):
            await model.step()
            model.check_state()
    await model.finish()
    plain = Driven(tiny, "loose-attention", slots=3, prefix_slots=0)
    for reading, prompt, fields in asked:
        assert answer(reading) == answer(await plain.alone(prompt, **fields))


async def test_a_token_is_fed_back_without_leaving_the_device(
    load: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    model.submit("abc", max_tokens=50)
    model.submit("xyz", max_tokens=50)
    await model.step(5)
    pushed: list[object] = []
    push = session._Twin.push

    def noting(twin: session._Twin) -> None:
        before = twin.seen
        push(twin)
        if twin.seen != before:
            pushed.append(twin.host)

    monkeypatch.setattr(session._Twin, "push", noting)
    await model.step(5)
    program = model.model.program
    copied = {host.ctypes.data for host in pushed}  # type: ignore[attr-defined]
    assert program._ids.ctypes.data not in copied
    changing = {program._lengths.ctypes.data, program._controls.uniform.ctypes.data}
    assert copied <= changing | {program._total.ctypes.data}


@pytest.mark.skipif(gpus() == 0, reason="no CUDA device")
@pytest.mark.parametrize("attention", [False, True])
async def test_captured_graphs_on_cuda_answer_as_the_cpu(tmp_path: Path, attention: bool) -> None:
    """Written for a machine with a GPU: padded rows, moves, prefixes and replays."""
    packages.text(
        tmp_path, name="cuda", attention=attention, context=256, sharpness=2.0, half=True, branches=False
    )
    model, exact = (
        Driven(tmp_path, "cuda", device=device, slots=6, prefix_slots=4) for device in ("cuda", "cpu")
    )
    assert model.model.program._step.captures
    chance = random.Random(1)
    for _ in range(30):
        prompt, fields = random_request(chance)
        reading = model.submit(prompt, **{**fields, "temperature": 0.0})
        await model.step(chance.randint(0, 3))
        model.check_state() if attention else None
        alone = await exact.alone(prompt, **{**fields, "temperature": 0.0})
        await model.finish()
        assert reading.tokens() == alone.tokens()
