"""Whether neighbours change a picture: random requests, each alone and then as one of many mixed ones, their files compared byte by byte.

    python -m tests.load.image_alone [--package FOLDER] [--requests 100] [--neighbours 16] [--json FILE]

The exit status is 1 where a file differs.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.image.painting import Painter
from deployments.messages import Draw
from deployments.studio import Studio
from model_store.manifest import Manifest
from tests.load.image_runs import arguments, draw, package_at, run, studio_of
from tests.load.text_runs import report, table


@dataclass(frozen=True, slots=True)
class Found:
    """How many requests gave the same files alone and among neighbours."""

    requests: int
    files: int
    neighbours: int
    same: int
    different: list[int]


def drawn(held: Manifest, seed: int, most_steps: int = 32) -> Draw:
    """A request of random steps, guidance, solver, words, format and number of pictures."""
    chance, part = random.Random(seed), Painter(held).denoise
    guidance = chance.choice((1.0, chance.uniform(1.0, part.most_guidance)))
    guided = guidance > 1 and not Painter(held).distilled
    return draw(
        held,
        seed,
        prompt=draw(held, chance.randrange(1000)).prompt,
        negative=draw(held, chance.randrange(1000)).prompt if guided and chance.random() < 0.3 else None,
        n=chance.choice((1, 1, 2, 3)),
        steps=chance.randint(1, min(most_steps, part.most_steps)),
        guidance=guidance,
        solver=chance.choice(part.solvers),
        format=chance.choice(("png", "png", "jpeg", "webp")),
    )


async def files(studio: Studio, asked: Draw) -> list[bytes | None]:
    """A request's pictures, encoded."""
    reply = await studio.call(asked)
    return [each.image for each in reply.outputs]


async def compare(studio: Studio, asked: Sequence[Draw], neighbours: int) -> Found:
    """Each request alone, then all of them with so many at once, beginning and ending at any time."""
    alone = [await files(studio, each) for each in asked]
    places = asyncio.Semaphore(neighbours)

    async def among(each: Draw) -> list[bytes | None]:
        async with places:
            return await files(studio, each)

    beside = await asyncio.gather(*(among(each) for each in asked))
    different = [place for place, pair in enumerate(zip(alone, beside, strict=True)) if pair[0] != pair[1]]
    same = len(asked) - len(different)
    return Found(len(asked), sum(map(len, alone)), neighbours, same, different)


def main() -> None:
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--neighbours", type=int, default=16)
    options = parser.parse_args()
    package = package_at(options.package)
    held = package.manifest
    asked = [drawn(held, seed) for seed in range(options.requests)]
    with studio_of(package, slots=options.neighbours, threads=options.threads) as (studio, _):
        found = run(compare(studio, asked, options.neighbours))
    title = f"{held.name}: files alone and among {options.neighbours} requests"
    made = table(title, ("requests", "files", "the same", "different"), words=0)
    made.add_row(str(found.requests), str(found.files), str(found.same), str(len(found.different)))
    report([made], [found], options.json)
    if found.different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
