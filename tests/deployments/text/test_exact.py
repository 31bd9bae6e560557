"""The same seed gives the same bits, however a prompt is cut and whatever runs beside it: a trained model, all of its figures."""

import random
from pathlib import Path
from typing import Any

from deployments.messages import TokenLogprob
from model_store.store import shipped
from tests.deployments.text.driven import Driven

PROMPTS = 40


def requests(seed: int) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    chance = random.Random(seed)
    return [
        (
            tuple(chance.choices(range(2, 512), k=chance.randint(1, 80))),
            {
                "max_tokens": chance.randint(1, 12),
                "temperature": chance.choice([0.0, 1.0]),
                "seed": number,
                "logprobs": 3,
            },
        )
        for number in range(PROMPTS)
    ]


async def test_bits_depend_neither_on_neighbours_nor_on_how_a_prompt_is_cut() -> None:
    alone = Driven(Path(shipped()), "shakespeare-gpt", slots=1, prefix_slots=0)
    expected: list[list[TokenLogprob]] = [
        (await alone.alone(prompt, **fields)).scores() for prompt, fields in requests(0)
    ]

    together = Driven(Path(shipped()), "shakespeare-gpt", slots=9, prefill_chunk=16)
    chance = random.Random(1)
    readings = []
    for prompt, fields in requests(0):
        readings.append(together.submit(prompt, **fields))
        await together.step(chance.randint(0, 3))
    await together.finish()

    assert [reading.scores() for reading in readings] == expected
