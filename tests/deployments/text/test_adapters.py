"""Rows of several adapters in one batch: each as if it were alone, and none continues what another's has computed."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.text.driven import Driven, Reading

NAMES = ("adapted", "adapted:twice", "adapted:thrice")
PROMPT = tuple(range(1, 41))
Open = Callable[..., Driven]


@pytest.fixture(params=["text", "attention"])
def load(tiny: Path, request: pytest.FixtureRequest) -> Open:
    def load_one(**options: Any) -> Driven:
        return Driven(tiny, f"adapted-{request.param}", **options)

    return load_one


def answer(reading: Reading) -> list[Any]:
    return [(reading.tokens(row), reading.scores(row)) for row in range(len(reading.rows))]


@pytest.mark.parametrize(("model", "text"), [(NAMES[0], "defg"), (NAMES[1], "egik"), (NAMES[2], "filo")])
async def test_a_request_has_the_adapter_it_names(load: Open, model: str, text: str) -> None:
    assert (await load().alone("abc", model=model, max_tokens=4)).text() == text


async def test_rows_of_all_adapters_share_a_step(load: Open) -> None:
    model = load()
    readings = [model.submit("abc", model=name, max_tokens=4) for name in NAMES]
    await model.step(4)
    assert [reading.text() for reading in readings] == ["defg", "egik", "filo"]


@pytest.mark.parametrize("chunk", [4, 256])
async def test_a_prompt_is_read_with_its_adapter(load: Open, chunk: int) -> None:
    """By twos it is likely with the one adapter and unlikely without."""
    model = load(prefill_chunk=chunk)
    readings = [
        model.submit("acegikmoqsu", model=name, max_tokens=0, echo=True, logprobs=0) for name in NAMES
    ]
    await model.finish()
    base, twice, thrice = (
        sum(score.logprob for score in each.scores() if score.logprob is not None) for each in readings
    )
    assert twice > base + 10
    assert twice > thrice + 10


@pytest.mark.parametrize("seed", range(4))
async def test_neighbours_do_not_matter(load: Open, seed: int) -> None:
    chance = random.Random(seed)
    requests: list[tuple[tuple[int, ...], dict[str, Any]]] = [
        (
            tuple(chance.choices(range(1, 256), k=chance.randint(1, 30))),
            {
                "model": chance.choice(NAMES),
                "max_tokens": chance.randint(1, 12),
                "temperature": chance.choice([0.0, 1.0]),
                "seed": chance.randint(0, 99),
                "logprobs": 3,
                "n": chance.randint(1, 2),
            },
        )
        for _ in range(12)
    ]
    alone = load(slots=2, prefix_slots=0)
    expected = [answer(await alone.alone(prompt, **fields)) for prompt, fields in requests]

    model = load(slots=5, prefill_chunk=16)
    readings = []
    for prompt, fields in requests:
        readings.append(model.submit(prompt, **fields))
        await model.step(chance.randint(0, 3))
    await model.finish()

    assert [answer(reading) for reading in readings] == expected


async def test_no_adapter_continues_what_another_has_computed(tiny: Path) -> None:
    model = Driven(tiny, "adapted-attention", slots=4, prefix_slots=4, share_prefixes=True)
    cached = [
        sum(row.work.cached for row in (await model.alone(PROMPT, model=name, max_tokens=2)).rows)
        for name in (*NAMES, *NAMES)
    ]
    assert cached == [0, 0, 0, 39, 39, 39]


async def test_nor_while_both_are_live(tiny: Path) -> None:
    model = Driven(tiny, "adapted-attention", slots=4, prefill_chunk=16)
    readings = [model.submit(PROMPT, model=name, max_tokens=3) for name in (*NAMES, NAMES[1])]
    await model.finish()
    assert [reading.rows[0].work.cached for reading in readings[:3]] == [0, 0, 0]
    assert readings[3].rows[0].work.cached > 0
    assert readings[3].tokens() == readings[1].tokens() == [42, 44, 46]
