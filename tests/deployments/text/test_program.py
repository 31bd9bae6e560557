import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import BadRequest, StepFailed
from deployments.messages import Complete, TokenLogprob
from deployments.rows import BACKLOG, RowsFailed
from deployments.text.meters import TextRow
from model_store.errors import RunFailed
from tests.deployments.text.driven import Driven, Reading

KINDS = ("text", "attention")
ENDLESS = {"eos_token_ids": ()}
Open = Callable[..., Driven]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """How the model keeps its state: written beside the old one, or in place."""
    return str(request.param)


@pytest.fixture
def load(tiny: Path, kind: str) -> Open:
    def load_one(variety: str = "tiny", **options: Any) -> Driven:
        return Driven(tiny, f"{variety}-{kind}", **options)

    return load_one


def answer(reading: Reading) -> list[tuple[str, list[int], list[TokenLogprob]]]:
    """Everything a client gets but the way it was cut into deltas."""
    return [(reading.text(i), reading.tokens(i), reading.scores(i)) for i in range(len(reading.rows))]


def expected_runners_up(kind: str, tokens: tuple[int, ...] | list[int]) -> list[int]:
    """What the tiny decoders show of their state after each token: how many were fed, or their mean."""
    if kind == "text":
        return [(i + 1) % 256 for i in range(len(tokens))]
    sums = itertools.accumulate(tokens)
    return [int(total / (i + 1) + 0.01) for i, total in enumerate(sums)]


def runners_up(scores: list[TokenLogprob]) -> list[int]:
    return [score.top[1][0][0] for score in scores]


# -- one request -------------------------------------------------------------------------------------------------------


async def test_greedy_continues_by_one(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=5)
    assert (reading.text(), reading.tokens()) == ("defgh", [100, 101, 102, 103, 104])
    assert [delta.finish for delta in reading.deltas] == [None, None, None, None, "length"]


async def test_one_token_a_step_after_the_prompt(load: Open) -> None:
    model = load()
    reading = model.submit("abc", max_tokens=4)
    await model.step()
    assert reading.text() == "d"
    await model.step()
    assert reading.text() == "de"


async def test_the_state_is_what_was_fed(load: Open, kind: str) -> None:
    reading = await load().alone("9@A", max_tokens=20, logprobs=5)
    fed = [*b"9@A", *reading.tokens()[:-1]]
    assert runners_up(reading.scores()) == expected_runners_up(kind, fed)[2:]


async def test_prompts_may_be_token_ids(load: Open) -> None:
    assert (await load().alone((97, 98), max_tokens=2)).text() == "cd"


async def test_the_end_of_text_ends_a_row(load: Open) -> None:
    reading = await load("ending").alone("abc", max_tokens=20)
    assert (reading.text(), reading.tokens(), reading.deltas[-1].finish) == (
        "def",
        [100, 101, 102, 0],
        "stop",
    )


async def test_a_stop_ends_a_row(load: Open) -> None:
    reading = await load().alone("abc", max_tokens=20, stop=("hij", "gh"))
    assert (reading.text(), reading.deltas[-1].finish) == ("def", "stop")


async def test_several_prompts_and_choices_are_rows_of_one_request(load: Open) -> None:
    reading = await load().alone("abc", "xyz", n=2, max_tokens=2)
    assert [reading.text(row) for row in range(4)] == ["de", "de", "{|", "{|"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
async def test_a_prompt_in_chunks_is_the_same_prompt(load: Open, kind: str, chunk: int) -> None:
    prompt = "0123456789"
    reading = await load(prefill_chunk=chunk).alone(prompt, max_tokens=6, logprobs=5, echo=True)
    whole = await load(prefill_chunk=256).alone(prompt, max_tokens=6, logprobs=5, echo=True)
    assert answer(reading) == answer(whole)
    fed = [*prompt.encode(), *reading.tokens()[:-1]]
    assert runners_up(reading.scores()[1:]) == expected_runners_up(kind, fed)


async def test_an_echo_with_scores_scores_the_prompt(load: Open) -> None:
    reading = await load().alone("abd", max_tokens=1, echo=True, logprobs=0)
    assert reading.text() == "abde"
    first, likely, unlikely, generated = reading.scores()
    assert [score.token for score in reading.scores()] == [b"a", b"b", b"d", b"e"]
    assert [score.offset for score in reading.scores()] == [0, 1, 2, 3]
    assert first.logprob is None
    assert likely.logprob is not None
    assert unlikely.logprob is not None
    assert generated.logprob is not None
    assert likely.logprob > -0.2 > -5 > unlikely.logprob
    assert all(score.top == () for score in reading.scores())


async def test_a_token_scores_the_same_in_a_prompt_and_in_an_answer(load: Open) -> None:
    model = load()
    said = await model.alone("abc", max_tokens=4, logprobs=5)
    echoed = await model.alone("abcdefg", max_tokens=0, logprobs=5, echo=True)
    for one, other in zip(said.scores(), echoed.scores()[3:], strict=True):
        assert (one.token, one.top) == (other.token, other.top)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-6)


@pytest.mark.parametrize(("echo", "text"), [(True, "abc"), (False, "")])
async def test_no_tokens_may_be_asked_for(load: Open, echo: bool, text: str) -> None:
    reading = await load().alone("abc", max_tokens=0, echo=echo)
    assert (reading.text(), reading.tokens(), reading.deltas[-1].finish) == (text, [], "length")


async def test_a_prompt_may_fill_the_context(load: Open) -> None:
    reading = await load().alone((1,) * 256, max_tokens=0, echo=True, logprobs=0)
    assert len(reading.scores()) == 256


async def test_an_answer_may_fill_the_context(load: Open) -> None:
    reading = await load(text=ENDLESS).alone("a", max_tokens=255)
    assert reading.tokens() == [(98 + i) % 256 for i in range(255)]


# -- refused -----------------------------------------------------------------------------------------------------------


def check(model: Driven, *prompts: str | tuple[int, ...], **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        model.model.prompts.prepare(Complete(model="tiny", prompts=prompts, **fields))
    return refused.value


async def test_more_than_the_context_is_refused(load: Open) -> None:
    error = check(load(), "ok", "x" * 200, max_tokens=57)
    assert (error.code, error.param) == ("context_length_exceeded", "prompt[1]")
    assert "256" in error.message


@pytest.mark.parametrize("token", [256, 2**31 - 1, -1])
def test_ids_outside_the_vocabulary_are_refused(load: Open, token: int) -> None:
    assert check(load(), "ok", (97, token)).param == "prompt[1]"


@pytest.mark.parametrize("prompt", ["", ()])
def test_an_empty_prompt_is_refused_where_nothing_begins_a_text(
    load: Open, prompt: str | tuple[int, ...]
) -> None:
    assert "empty" in check(load(), prompt).message


@pytest.mark.parametrize("prompt", ["", ()])
async def test_an_empty_prompt_begins_a_text_where_a_token_does(
    load: Open, prompt: str | tuple[int, ...]
) -> None:
    model = load(text={"bos_token_id": ord("a")})
    assert (await model.alone(prompt, max_tokens=3)).text() == "bcd"
    assert model.value("prompt_tokens_total") == 1


# -- sharing a batch ---------------------------------------------------------------------------------------------------

LENGTHS = [3, 17, 1, 9, 40, 2, 25, 12]


def varied(i: int) -> dict[str, Any]:
    """Requests that differ in everything that is kept per slot."""
    return {
        "max_tokens": LENGTHS[i],
        "temperature": [0.0, 1.0, 0.7, 1.5][i % 4],
        "top_k": [0, 3, 0][i % 3],
        "top_p": [1.0, 0.9][i % 2],
        "seed": i,
        "logprobs": 3,
    }


async def test_rows_that_come_and_go_do_not_disturb_each_other(load: Open) -> None:
    """More requests than slots, of different lengths, in chunks: each is answered as if it were alone."""
    model = load("loose", slots=4, prefill_chunk=5)
    prompts = ["abc" * (i + 1) for i in range(8)]
    together = []
    for i, prompt in enumerate(prompts):
        together.append(model.submit(prompt, **varied(i)))
        await model.step(i % 3)
    await model.finish()
    alone = load("loose", slots=1)
    for i, prompt in enumerate(prompts):
        assert answer(together[i]) == answer(await alone.alone(prompt, **varied(i)))


async def test_a_slot_remembers_nothing_of_the_row_before(load: Open, kind: str) -> None:
    model = load(slots=1)
    await model.alone("zzzzzzzz", max_tokens=30)
    reading = await model.alone("9@A", max_tokens=5, logprobs=5)
    fed = [*b"9@A", *reading.tokens()[:-1]]
    assert runners_up(reading.scores()) == expected_runners_up(kind, fed)[2:]


async def test_a_request_joins_a_running_batch(load: Open) -> None:
    model = load()
    first = model.submit("abc", max_tokens=20)
    await model.step(5)
    second = model.submit("xyz", max_tokens=5)
    await model.finish()
    assert (first.text(), second.text()) == ("defghijklmnopqrstuvw", "{|}~\x7f")
    steps, rows = (
        model.value("batch_rows_count", graph="decode"),
        model.value("batch_rows_sum", graph="decode"),
    )
    assert (steps, rows) == (20, 20 + 5)


async def test_a_long_prompt_does_not_stop_who_is_generating(load: Open) -> None:
    model = load(prefill_chunk=10)
    first = model.submit("abc", max_tokens=50)
    await model.step()
    model.submit("x" * 100, max_tokens=1)
    for step in range(10):
        await model.step()
        assert len(first.tokens()) == 2 + step


async def test_prompts_are_processed_in_the_order_they_came(load: Open) -> None:
    """Also after rows were moved into the places of rows that left."""
    model = load(slots=3, prefill_chunk=8)
    model.submit("a", max_tokens=2)
    older = model.submit("b" * 30, max_tokens=1)
    younger = model.submit("c" * 30, max_tokens=1)
    await model.step(2)  # the first row leaves: the last one takes its slot
    assert [row.work.row for row in model.model.engine.scheduler.live] == [0, 0]
    assert model.model.engine.scheduler.live[0] is younger.rows[0]
    while not younger.deltas:
        await model.step()
    assert older.deltas


async def test_choices_draw_from_different_streams(load: Open) -> None:
    model = load("loose")
    reading = await model.alone("abc", n=4, max_tokens=20, temperature=1.0, seed=5)
    texts = [tuple(reading.tokens(row)) for row in range(4)]
    assert len(set(texts)) == 4
    again = await model.alone("abc", n=4, max_tokens=20, temperature=1.0, seed=5)
    assert texts == [tuple(again.tokens(row)) for row in range(4)]
    other = await model.alone("abc", n=4, max_tokens=20, temperature=1.0, seed=6)
    assert texts != [tuple(other.tokens(row)) for row in range(4)]


async def test_the_first_choice_is_the_only_one_of_a_request_for_one(load: Open) -> None:
    model = load("loose")
    several = await model.alone("abc", n=3, max_tokens=20, temperature=1.0, seed=5)
    one = await model.alone("abc", max_tokens=20, temperature=1.0, seed=5)
    assert one.tokens() == several.tokens(0)


async def test_text_sent_in_pieces_is_the_text_of_the_tokens(load: Open) -> None:
    """Random bytes, most of them no characters."""
    reading = await load("loose").alone(
        "\N{EURO SIGN}\N{WINKING FACE}", max_tokens=100, temperature=2.0, seed=1
    )
    assert reading.text() == bytes(reading.tokens()).decode(errors="replace")
    assert all(delta.text for delta in reading.deltas[:-1])


async def test_paused_rows_ride_along_without_damage(load: Open) -> None:
    model = load("loose", text=ENDLESS)
    sampled: dict[str, Any] = {"temperature": 1.0, "seed": 3, "logprobs": 2}
    slow = model.submit("abc", slow=True, max_tokens=3 * BACKLOG, **sampled)
    quick = model.submit("xyz", max_tokens=3 * BACKLOG, **sampled)
    await model.finish()
    assert slow.rows[0].paused
    assert len(slow.ticket.unread) <= BACKLOG + 1
    slow.slow = False
    await slow.read()
    await model.finish()
    alone = load("loose", text=ENDLESS)
    assert answer(slow) == answer(await alone.alone("abc", max_tokens=3 * BACKLOG, **sampled))
    assert answer(quick) == answer(await alone.alone("xyz", max_tokens=3 * BACKLOG, **sampled))


async def test_a_cancelled_prompt_is_not_processed_to_its_end(load: Open) -> None:
    model = load(prefill_chunk=4)
    reading = model.submit("x" * 100, max_tokens=5)
    await model.step()
    model.model.engine.cancel(reading.ticket)
    reading.slow = True
    await model.step(2)
    assert reading.rows[0].work.fed == 4
    assert model.model.engine.scheduler.live == []
    assert (await model.alone("abc", max_tokens=3)).text() == "def"


async def test_a_prompt_that_breaks_the_model_ends_its_own_request_alone(
    load: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(prefill_chunk=8)
    running = model.submit("abc", max_tokens=6)
    await model.step()
    program = model.model.program

    def broken(group: list[TextRow], budget: int) -> int:
        raise RunFailed("out of range")

    with monkeypatch.context() as patch:
        patch.setattr(program, "_run_chunk", broken)
        poison = model.submit("x" * 20, max_tokens=2, slow=True)
        with pytest.raises(RowsFailed):
            await model.step()
        model.model.engine._fault(poison.rows)
    await model.finish()
    assert running.text() == "defghi"
    assert model.model.engine.scheduler.live == []
    with pytest.raises(StepFailed):
        await poison.ticket.next()
    assert (await model.alone("x" * 20, max_tokens=2)).text() == "yz"


# -- figures -----------------------------------------------------------------------------------------------------------


async def test_figures_are_what_the_client_saw(load: Open) -> None:
    model = load(prefill_chunk=4)
    readings = [
        model.submit("abcdef", n=2, max_tokens=7),
        model.submit("abc", "xyzxyz", max_tokens=1),
        model.submit("abc", max_tokens=0),
    ]
    await model.finish()
    tokens = sum(len(reading.tokens(i)) for reading in readings for i in range(len(reading.rows)))
    assert model.value("completion_tokens_total") == tokens == 16
    assert model.value("prompt_tokens_total") == 6 + 3 + 6 + 3
    assert model.value("time_to_first_token_seconds_count") == 4
    assert model.value("inter_token_seconds_count") == tokens - 4
    assert model.value("time_per_output_token_seconds_count") == 2
    assert model.value("step_seconds_count", graph="prefill") >= 4
    assert model.value("batch_rows_sum", graph="decode") == tokens
