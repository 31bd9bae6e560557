"""State that is used again: kept prefixes, prompts shared by live rows. Never another answer, never another's state."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.messages import Complete, TokenLogprob, Usage
from deployments.model import TextModel
from deployments.rows import RowsFailed
from deployments.text.prefixes import SHORTEST
from model_store.errors import RunFailed
from tests.deployments.conftest import OpenStudio
from tests.deployments.text.driven import Driven, Reading

Open = Callable[..., Driven]
SYSTEM = tuple(random.Random(0).choices(range(1, 256), k=60))
SCORED: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0, "logprobs": 3}


@pytest.fixture
def load(tiny: Path) -> Open:
    def load_one(name: str = "loose-attention", **options: Any) -> Driven:
        return Driven(tiny, name, **{"slots": 4, "prefix_slots": 4, **options})

    return load_one


def answer(reading: Reading) -> list[tuple[list[int], list[TokenLogprob]]]:
    return [(reading.tokens(i), reading.scores(i)) for i in range(len(reading.rows))]


def cached(*readings: Reading) -> list[int]:
    """What the answer's usage says of each request."""
    return [sum(row.work.cached for row in reading.rows) for reading in readings]


def prefilled(model: Driven) -> list[int]:
    """Prompt tokens that the graph computes from now on, run by run; padding counts."""
    chunks = model.model.program._chunks
    note, runs = chunks.prefilled, list[int]()

    def noting(tokens: int, seconds: float) -> None:
        runs.append(tokens)
        note(tokens, seconds)

    chunks.prefilled = noting  # type: ignore[method-assign]
    return runs


def split(tokens: int, chunk: int) -> list[int]:
    return [min(chunk, tokens - first) for first in range(0, tokens, chunk)]


# -- a prompt that continues another -----------------------------------------------------------------------------------


async def test_a_prompt_that_starts_alike_is_not_computed_again(load: Open) -> None:
    model = load()
    await model.alone((*SYSTEM, 1, 2, 3), **SCORED)
    runs = prefilled(model)
    again = await model.alone((*SYSTEM, 4, 5, 6), **SCORED)
    assert (sum(runs), cached(again)) == (2, [60])  # the last token goes with the first decode
    assert answer(again) == answer(await load(prefix_slots=0).alone((*SYSTEM, 4, 5, 6), **SCORED))


async def test_the_same_prompt_again_computes_nothing(load: Open) -> None:
    model = load()
    first = await model.alone(SYSTEM, **SCORED)
    runs = prefilled(model)
    again = await model.alone(SYSTEM, **SCORED)
    assert (runs, cached(again), answer(again)) == ([], [59], answer(first))


async def test_an_answer_is_part_of_what_may_be_continued(load: Open) -> None:
    """The next turn of a conversation."""
    model = load()
    first = await model.alone(SYSTEM, **SCORED)
    runs = prefilled(model)
    turn = (*SYSTEM, *first.tokens(), 9, 9, 9)
    reading = await model.alone(turn, **SCORED)
    assert (sum(runs), cached(reading)) == (3, [65])  # the last token of an answer was never fed
    assert answer(reading) == answer(await load(prefix_slots=0).alone(turn, **SCORED))


@pytest.mark.parametrize(("same", "used"), [(SHORTEST - 1, 0), (SHORTEST, SHORTEST), (40, 40)])
async def test_what_is_used_is_what_is_alike(load: Open, same: int, used: int) -> None:
    model = load()
    await model.alone(SYSTEM, **SCORED)
    prompt = (*SYSTEM[:same], *(256 - token for token in SYSTEM[same:]))
    reading = await model.alone(prompt, **SCORED)
    assert cached(reading) == [used]
    assert answer(reading) == answer(await load(prefix_slots=0).alone(prompt, **SCORED))


async def test_the_metric_is_the_sum_of_what_the_answers_say(load: Open) -> None:
    model = load()
    readings = [await model.alone(*(SYSTEM[:k] for k in (30, 60)), n=n, **SCORED) for n in (1, 2, 3)]
    assert cached(*readings)[1:] == [29 + 59, 29 + 59]
    assert model.value("cached_prompt_tokens_total") == sum(cached(*readings))
    assert model.value("prompt_tokens_total") == 3 * 90
    assert all(row.work.cached <= len(row.work.prompt) for reading in readings for row in reading.rows)


async def test_the_answer_s_usage_says_what_was_there_already(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-attention")
    request = Complete("tiny-attention", (SYSTEM,), max_tokens=3, n=2, best_of=3, temperature=0.0)
    usages = [(await opened.studio.collect(request))[-1].usage for _ in range(2)]
    assert usages == [Usage(60, 9, cached_tokens) for cached_tokens in (0, 59)]
    assert opened.value("cached_prompt_tokens_total", model="tiny-attention") == 59


async def test_a_recurrent_state_cannot_be_cut_and_is_not_kept(load: Open) -> None:
    model = load("loose-text")
    first = await model.alone(SYSTEM, **SCORED)
    again = await model.alone(SYSTEM, **SCORED)
    assert cached(first, again) == [0, 0]
    assert answer(first) == answer(again)


async def test_what_a_cancelled_prompt_has_computed_is_kept(load: Open) -> None:
    model = load(prefill_chunk=20)
    reading = model.submit(SYSTEM, **SCORED)
    await model.step()
    assert reading.rows[0].work.fed == 20
    model.cancel(reading)
    await model.step()
    assert model.model.engine.scheduler.live == []
    model.check_state()
    again = await model.alone(SYSTEM, **SCORED)
    assert cached(again) == [20]
    assert answer(again) == answer(await load(prefix_slots=0).alone(SYSTEM, **SCORED))


async def test_two_conversations_with_one_beginning_do_not_drive_each_other_out(load: Open) -> None:
    """They take turns in one slot, and each finds all of its own."""
    model = load()
    ann, bob = (*SYSTEM, *[1] * 20), (*SYSTEM, *[2] * 20)
    for turn in range(3):
        readings = [await model.alone(said, **SCORED) for said in (ann, bob)]
        model.check_state()
        if turn:
            assert cached(*readings) == [len(ann) - 6, len(bob) - 6]
        ann, bob = ((*said, *r.tokens(), *[3] * 5) for said, r in zip((ann, bob), readings, strict=True))


# -- whose state ---------------------------------------------------------------------------------------------------------


async def test_nobody_is_told_what_others_have_asked(load: Open) -> None:
    model = load()
    await model.alone(SYSTEM, principal="ann", **SCORED)
    bob, nobody, ann = [await model.alone(SYSTEM, principal=who, **SCORED) for who in ("bob", "", "ann")]
    assert cached(bob, nobody, ann) == [0, 0, 59]


async def test_prompts_of_others_are_not_shared_while_they_are_live_either(load: Open) -> None:
    model = load(prefill_chunk=20)
    ann = model.submit(SYSTEM, principal="ann", **SCORED)
    bob = model.submit(SYSTEM, principal="bob", **SCORED)
    await model.finish()
    assert cached(ann, bob) == [0, 0]


async def test_a_host_may_let_all_share(load: Open) -> None:
    model = load(share_prefixes=True)
    await model.alone(SYSTEM, principal="ann", **SCORED)
    assert cached(await model.alone(SYSTEM, principal="bob", **SCORED)) == [59]


async def test_who_wants_no_reuse_neither_uses_nor_leaves_state(load: Open) -> None:
    model = load()
    private = {"reuse_prefix": False, **SCORED}
    await model.alone(SYSTEM, **private)
    assert len(model.model.program._slots.prefixes) == 0
    first = await model.alone(SYSTEM, **SCORED)
    second = await model.alone(SYSTEM, **private)
    assert cached(first, second) == [0, 0]
    together = [model.submit(SYSTEM[::-1], **private), model.submit(SYSTEM[::-1], **SCORED)]
    await model.finish()
    assert cached(*together) == [0, 0]


async def test_prompt_probabilities_are_computed_and_not_used_again(load: Open) -> None:
    model = load()
    echoed = {**SCORED, "echo": True}
    first = await model.alone(SYSTEM, **SCORED)
    echo = await model.alone(SYSTEM, **echoed)
    assert cached(first, echo) == [0, 0]
    assert len(echo.scores()) == 60 + 6
    assert echo.scores() == (await load(prefix_slots=0).alone(SYSTEM, **echoed)).scores()


# -- prompts shared by live rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loose-attention", "loose-text"])
@pytest.mark.parametrize(("size", "chunk"), [(60, 256), (60, 7), (3, 256), (2, 256)])
async def test_choices_compute_their_prompt_once(load: Open, name: str, size: int, chunk: int) -> None:
    model = load(name, prefill_chunk=chunk)
    runs = prefilled(model)
    reading = await model.alone(SYSTEM[:size], n=4, **SCORED)
    least = 2 if name == "loose-attention" else 1  # attention never reads one place alone
    assert sum(runs) == sum(max(least, each) for each in split(size - 1, chunk))
    assert model.value("prompt_tokens_total") == size
    assert cached(reading) == [0]
    alone = await load(name, slots=1, prefix_slots=0).alone(SYSTEM[:size], n=4, **SCORED)
    assert answer(reading) == answer(alone)
    assert len({tuple(reading.tokens(i)) for i in range(4)}) > 1


async def test_choices_of_a_prompt_that_starts_alike_compute_the_rest_once(load: Open) -> None:
    model = load()
    await model.alone(SYSTEM[:40], **SCORED)
    for size, rest in ((60, 20), (44, 4)):
        runs = prefilled(model)
        prompt = (*SYSTEM[:40], *range(size, 2 * size - 40))
        reading = await model.alone(prompt, n=4, **SCORED)
        assert (sum(runs), cached(reading)) == (rest - 1, [40])
        assert answer(reading) == answer(await load(slots=1, prefix_slots=0).alone(prompt, n=4, **SCORED))


async def test_choices_that_had_to_wait_continue_what_the_others_left(load: Open) -> None:
    model = load(slots=2)
    runs = prefilled(model)
    reading = await model.alone(SYSTEM, n=6, **SCORED)
    assert (sum(runs), cached(reading)) == (59, [0])


async def test_the_best_of_several_compute_the_prompt_once(load: Open) -> None:
    model = load()
    runs = prefilled(model)
    reading = await model.alone(SYSTEM, best_of=4, **SCORED)
    assert (sum(runs), len(reading.rows)) == (59, 4)


async def test_a_request_that_joins_copies_what_a_live_one_has(load: Open) -> None:
    model = load(prefix_slots=0)
    first = model.submit(SYSTEM, **{**SCORED, "max_tokens": 20})
    await model.step(3)
    runs = prefilled(model)
    second = model.submit((*SYSTEM, 1, 2), **SCORED)
    await model.finish()
    assert (sum(runs), cached(first, second)) == (2, [0, 60])  # one, and one that is fed again
    assert answer(second) == answer(await load(prefix_slots=0).alone((*SYSTEM, 1, 2), **SCORED))


async def test_several_short_prompts_are_one_run(load: Open) -> None:
    model = load()
    readings = [model.submit(SYSTEM[i : i + size], **SCORED) for i, size in enumerate((5, 9, 2, 7))]
    runs = prefilled(model)
    await model.step()
    assert runs == [4 * 8]  # as long as the longest but its last token
    await model.finish()
    for i, size in enumerate((5, 9, 2, 7)):
        alone = await load(slots=1, prefix_slots=0).alone(SYSTEM[i : i + size], **SCORED)
        assert answer(readings[i]) == answer(alone)


async def test_a_recurrent_model_reads_prompts_one_by_one(load: Open) -> None:
    model = load("loose-text")
    runs = prefilled(model)
    for i in range(3):
        model.submit(SYSTEM[i : i + 5], **SCORED)
    await model.step()
    assert runs == [4, 4, 4]


# -- slots that change hands -------------------------------------------------------------------------------------------


async def test_a_prefix_that_was_written_over_is_not_continued(load: Open) -> None:
    """Rows move up in two steps: the state of one lies for a moment where another's prefix was to be kept."""
    model = load(slots=5, prefix_slots=8)
    prompts = [tuple(random.Random(i).choices(range(1, 256), k=30)) for i in range(5)]
    limits = [40, 5, 40, 5, 40]
    for prompt, limit in zip(prompts, limits, strict=True):
        model.submit(prompt, max_tokens=limit)
    for _ in range(12):
        await model.step()
        model.check_state()
    reading = await model.alone(prompts[3], **SCORED)
    assert answer(reading) == answer(await load(prefix_slots=0).alone(prompts[3], **SCORED))


async def test_the_least_recently_used_prefix_makes_room(load: Open) -> None:
    model = load(slots=1, prefix_slots=2)
    prompts = [(*range(10 * i + 1, 10 * i + 31),) for i in range(4)]
    for prompt in prompts[:2]:
        await model.alone(prompt, max_tokens=1)
    assert cached(await model.alone((*prompts[0], 7), max_tokens=1)) == [30]
    for prompt in prompts[2:]:
        await model.alone(prompt, max_tokens=1)
        model.check_state()
    assert cached(await model.alone((*prompts[1], 7), max_tokens=1)) == [0]
    assert len(model.model.program._slots.prefixes) <= 3


class Failing:
    """A binding whose run fails."""

    def run(self) -> None:
        raise RunFailed("no memory")


@pytest.mark.parametrize("part", ["_bind", "_decode_binding"])
async def test_a_failed_run_leaves_no_wrong_prefix(
    load: Open, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    engine, program = model.model.engine, model.model.program
    await model.alone(SYSTEM, **SCORED)
    failing = model.submit((*SYSTEM, 1, 2), slow=True, n=2, **SCORED)
    with monkeypatch.context() as patch:
        patch.setattr(program, part, lambda *_, **__: Failing())
        with pytest.raises((RowsFailed, RunFailed)) as raised:
            engine.step()
    # As the engine's loop does.
    if isinstance(raised.value, RowsFailed):
        engine._fault(raised.value.rows)
    else:
        engine._fault(engine.scheduler.live)
        engine.scheduler.live.clear()
    await model.step(2)
    assert failing.ticket.failure is not None
    model.check_state()
    reading = await model.alone((*SYSTEM, 1, 2), **SCORED)
    assert answer(reading) == answer(await load(prefix_slots=0).alone((*SYSTEM, 1, 2), **SCORED))


def random_request(chance: random.Random) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A prompt that often starts like others, asked in one of many ways."""
    texts = [SYSTEM, SYSTEM[::-1], (*SYSTEM[:20], *SYSTEM[::-1])]
    start = chance.choice(texts)[: chance.choice((0, 10, 17, 30, 60))]
    end = tuple(chance.choices(range(1, 4), k=chance.randint(1, 20)))
    fields: dict[str, Any] = {
        "n": chance.choice((1, 1, 1, 3)),
        "max_tokens": chance.choice((0, 1, 3, 12, 30)),
        "temperature": chance.choice((0.0, 1.0)),
        "seed": chance.randint(0, 5),
        "logprobs": 3,
        "principal": chance.choice(("ann", "bob")),
        "reuse_prefix": chance.random() < 0.8,
        "echo": chance.random() < 0.1,
    }
    if chance.random() < 0.3:
        fields |= {
            "repetition_penalty": 1.2,
            "presence_penalty": 0.5,
            "min_tokens": min(2, fields["max_tokens"]),
        }
    return (*start, *end), fields


@pytest.mark.parametrize("seed", range(6))
async def test_random_requests_are_answered_as_if_nothing_was_used_again(load: Open, seed: int) -> None:
    """Admitted together, one by one, moved, evicted, cancelled at any time: same tokens, same figures."""
    chance = random.Random(seed)
    slots, kept, chunk = chance.choice(((4, 4, 16), (3, 1, 256), (6, 8, 5), (1, 3, 32), (5, 2, 24)))
    model = load(slots=slots, prefix_slots=kept, prefill_chunk=chunk)
    asked: list[tuple[Reading, tuple[int, ...], dict[str, Any]]] = []
    for _ in range(25):
        for _ in range(chance.choice((0, 1, 1, 4))):
            prompt, fields = random_request(chance)
            asked.append((model.submit(prompt, **fields), prompt, fields))
        if asked and chance.random() < 0.15:
            model.cancel(chance.choice(asked)[0])
        for _ in range(chance.randint(0, 4)):
            await model.step()
            model.check_state()
    await model.finish()
    plain = load(slots=3, prefix_slots=0)
    for reading, prompt, fields in asked:
        if not reading.slow:
            assert answer(reading) == answer(await plain.alone(prompt, **fields))
    whole = [row for reading, *_ in asked for row in reading.rows if row.work.generated]
    assert any(row.work.cached for row in whole)
    counted = sum(row.work.cached for reading, *_ in asked for row in reading.rows)
    assert model.value("cached_prompt_tokens_total") == counted


def test_the_number_of_kept_prefixes_is_the_host_s(load: Open) -> None:
    for count in (0, 3):
        opened: TextModel = load(prefix_slots=count).model
        assert opened.program._slots.keeps is (count > 0)
