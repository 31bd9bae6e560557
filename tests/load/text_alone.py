"""Whether neighbours change a text: random requests, each alone and then as one of 16 mixed ones, compared byte by byte.

python -m tests.load.text_alone --store DIR --model NAME [--requests 200] [--neighbours 16] [--json FILE]
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uvicorn.loops.auto import auto_loop_factory

from deployments.messages import Complete
from deployments.studio import Studio
from tests.load.text_runs import Timed, opened, prompt, report, request, table, timed


@dataclass(frozen=True, slots=True)
class Found:
    """How many texts were the same alone and among neighbours."""

    requests: int
    neighbours: int
    same: int
    different: list[int]


def drawn(model: str, seed: int, vocabulary: int, longest: int = 48) -> Complete:
    """A request of random length, controls and seed."""
    chance = random.Random(seed)
    ids = tuple(token % vocabulary for token in prompt(chance.randint(1, longest), seed))
    return request(
        model,
        ids,
        chance.randint(4, 32),
        temperature=chance.choice((0.0, 0.5, 1.0, 1.5)),
        top_p=chance.choice((1.0, 0.9, 0.5)),
        top_k=chance.choice((0, 1, 50)),
        min_p=chance.choice((0.0, 0.0, 0.05)),
        repetition_penalty=chance.choice((1.0, 1.2)),
        presence_penalty=chance.choice((0.0, 0.7)),
        frequency_penalty=chance.choice((0.0, 0.4)),
        logit_bias=chance.choice(((), ((ids[0], 2.0),))),
        logprobs=chance.choice((None, 0, 3)),
        seed=seed,
        reuse_prefix=chance.random() < 0.5,
    )


async def compare(studio: Studio, asked: Sequence[Complete], neighbours: int) -> Found:
    """Each request alone, then all of them with so many at once, beginning and ending at any time."""
    alone = [await timed(studio, each) for each in asked]
    places = asyncio.Semaphore(neighbours)

    async def among(each: Complete) -> Timed:
        async with places:
            return await timed(studio, each)

    mixed = await asyncio.gather(*(among(each) for each in asked))
    pairs = enumerate(zip(alone, mixed, strict=True))
    different = [
        place for place, (one, other) in pairs if (one.text, one.tokens) != (other.text, other.tokens)
    ]
    return Found(len(asked), neighbours, len(asked) - len(different), different)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--neighbours", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    asked = [drawn(options.model, seed, options.vocabulary) for seed in range(options.requests)]
    with (
        opened(options.store, [options.model], slots=options.neighbours) as (studio, _),
        asyncio.Runner(loop_factory=auto_loop_factory()) as runner,
    ):
        found = runner.run(compare(studio, asked, options.neighbours))
    title = f"{options.model}: texts alone and among {options.neighbours} rows"
    made = table(title, ("requests", "the same", "different"), words=0)
    made.add_row(str(found.requests), str(found.same), str(len(found.different)))
    report([made], [found], options.json)


if __name__ == "__main__":
    main()
