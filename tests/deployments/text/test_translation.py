"""Rows of an encoder-decoder: what they are about is read in batches, once for each prompt, and changes nothing beside it."""

from pathlib import Path
from typing import Any

import pytest

from deployments.errors import StepFailed
from deployments.rows import RowsFailed
from deployments.text.meters import TextRow
from model_store.errors import RunFailed
from model_store.store import shipped
from tests.deployments.text.driven import Driven, Reading

SENTENCES = (
    "I am hungry.",
    "Where is the train station?",
    "If it rains tomorrow, we will stay at home.",
    "She has been living in Paris for ten years.",
    "Thank you!",
)


@pytest.fixture
def model() -> Driven:
    return Driven(Path(shipped()), "eng-fra", slots=8)


def read(model: Driven) -> tuple[float, float]:
    """Runs of the encoder, and rows in them."""
    return tuple(model.value(f"batch_rows_{part}", graph="prefill") for part in ("count", "sum"))  # type: ignore[return-value]


async def test_sentences_that_come_together_are_read_in_one_run(model: Driven) -> None:
    alone = [(await model.alone(sentence, max_tokens=24)).text() for sentence in SENTENCES]
    before, _ = read(model)

    readings = [model.submit(sentence, max_tokens=24) for sentence in SENTENCES]
    await model.finish()

    assert alone[0] == "J'ai faim."
    assert [reading.text() for reading in readings] == alone
    assert read(model)[0] - before == 1


async def test_a_sampled_row_is_the_same_among_others(model: Driven) -> None:
    fields: dict[str, Any] = {"max_tokens": 24, "temperature": 0.9, "seed": 5, "logprobs": 2}
    alone = await model.alone(SENTENCES[2], **fields)

    among = [model.submit(sentence, max_tokens=24) for sentence in SENTENCES[:2]]
    await model.step(3)
    late = model.submit(SENTENCES[2], **fields)
    model.submit(SENTENCES[3], max_tokens=24)
    await model.finish()

    assert late.scores() == alone.scores()
    assert len({reading.text() for reading in (*among, late)}) == 3


async def test_one_prompt_is_read_once_for_all_its_rows(model: Driven) -> None:
    reading = await model.alone(SENTENCES[1], max_tokens=24, n=3, temperature=0.7, seed=1)

    assert read(model) == (1, 1)
    assert model.value("prompt_tokens_total") == len(reading.rows[0].work.source)
    for choice in range(3):
        other = Driven(Path(shipped()), "eng-fra", slots=8) if choice == 0 else model
        again = await other.alone(SENTENCES[1], max_tokens=24, n=3, temperature=0.7, seed=1)
        assert again.text(choice) == reading.text(choice)


async def test_a_burst_is_read_in_parts_between_the_steps_of_who_is_being_answered() -> None:
    model = Driven(Path(shipped()), "eng-fra", slots=8, prefill_chunk=64)
    running = model.submit(SENTENCES[2], max_tokens=24)
    await model.step(2)

    for _ in range(7):
        model.submit(" ".join(SENTENCES[:4]), max_tokens=4)
    before = len(running.tokens())
    for step in range(1, 4):
        await model.step()
        assert len(running.tokens()) == before + step
        assert read(model)[0] == 1 + step
    assert read(model)[1] < 8  # not all of them yet


async def test_an_encoder_that_fails_ends_the_rows_it_ran_for(
    model: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = model.submit(SENTENCES[0], max_tokens=24)
    await model.step()

    def broken(group: list[TextRow]) -> bool:
        raise RunFailed("out of range")

    with monkeypatch.context() as patch:
        patch.setattr(model.model.program, "_read", broken)
        poison: Reading = model.submit(SENTENCES[1], slow=True)
        with pytest.raises(RowsFailed):
            await model.step()
        model.model.engine._fault(poison.rows)
    await model.finish()

    assert running.text() == "J'ai faim."
    with pytest.raises(StepFailed):
        await poison.ticket.next()
