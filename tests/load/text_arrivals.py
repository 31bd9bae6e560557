"""What a long prompt costs those who are being answered, and what a known one costs: inter-token gaps and first tokens.

    python -m tests.load.text_arrivals --store DIR --model NAME [--streams 8] [--prompt 512] [--rounds 5] [--json FILE]

In process, two threads. While the streams run a request with a long prompt arrives; the worst gap between two tokens
of any stream until it is answered is compared with the median gap before and after. Then prompts that share their first tokens with
an earlier one are compared with prompts that share nothing, each alone.
"""

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from uvicorn.loops.auto import auto_loop_factory

from deployments.studio import Studio
from tests.load.text_runs import judged, opened, prompt, report, request, table, timed

GAP = 2.5  # worst gap, of the median
WARM = 0.25  # first token on a known prefix, of one on an unknown
SUFFIX = 8


@dataclass(frozen=True, slots=True)
class Arrival:
    """A long prompt among running streams: medians over the rounds, in seconds."""

    median_gap: float
    worst_gap: float
    share: float
    first: float


@dataclass(frozen=True, slots=True)
class Prefix:
    """First tokens with and without a known prefix: medians over the rounds, in seconds."""

    cold: float
    warm: float
    share: float
    cached: int


async def arrival(
    studio: Studio, model: str, streams: int, length: int, seed: int
) -> tuple[float, float, float]:
    """Median gap before the prompt arrives and after its answer, worst gap between, and the arrival's own first token."""
    asked = [
        request(model, prompt(32, 1000 * seed + number), 320, temperature=0.0) for number in range(streams)
    ]
    running = [asyncio.create_task(timed(studio, each)) for each in asked]
    await asyncio.sleep(0)
    began = perf_counter()
    # All streams run for some time before the prompt arrives: as long as it took to start them, and half a second.
    first = await timed(studio, request(model, prompt(8, 1000 * seed + 900), 8, temperature=0.0))
    await asyncio.sleep(0.5)
    arrived = perf_counter()
    long = await timed(studio, request(model, prompt(length, 1000 * seed + 901), 1, temperature=0.0))
    ended = perf_counter()
    done = [await task for task in running]
    spans = [
        span
        for each in done
        for span in zip(each.came, each.came[1:], strict=False)
        if span[0] > began + first.first
    ]
    # Rows grow longer and slower all the time: before and after, the median is that of the time between.
    usual = [end - start for start, end in spans if end <= arrived or start >= ended]
    during = [end - start for start, end in spans if end > arrived and start < ended]
    return median(usual), max(during), long.first


async def prefix(studio: Studio, model: str, length: int, seed: int) -> tuple[float, float, int]:
    """First token of a prompt never seen, of one that shares its first tokens, and how many of them were known."""
    shared = prompt(length, 7_000_000 + seed)
    found = []
    for end in range(2):
        ids = shared + prompt(SUFFIX, 8_000_000 + 10 * seed + end)
        found.append(await timed(studio, request(model, ids, 2, temperature=0.0, reuse_prefix=True)))
    return found[0].first, found[1].first, found[1].cached


async def measure(
    studio: Studio, model: str, *, streams: int, length: int, rounds: int
) -> tuple[Arrival, Prefix]:
    """Medians over the rounds, after one for warmth."""
    await arrival(studio, model, streams, length, 99)
    arrivals = [await arrival(studio, model, streams, length, seed) for seed in range(rounds)]
    prefixes = [await prefix(studio, model, length, seed) for seed in range(rounds)]
    usual, worst, first = (median(each) for each in zip(*arrivals, strict=True))
    cold, warm = (median(each[place] for each in prefixes) for place in (0, 1))
    share = median(worst / usual for usual, worst, _ in arrivals)
    known = min(each[2] for each in prefixes)
    return Arrival(usual, worst, share, first), Prefix(cold, warm, warm / cold, known)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with opened(options.store, [options.model], slots=16, context=1024) as (studio, _):
        work = measure(
            studio, options.model, streams=options.streams, length=options.prompt, rounds=options.rounds
        )
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            gaps, known = runner.run(work)
    title = f"{options.model}: a prompt of {options.prompt} tokens"
    columns = ("", "usually ms", "then ms", "share", "aim")
    made = table(title, columns)
    made.add_row(
        f"gap of {options.streams} running streams (median, worst while it is read)",
        f"{gaps.median_gap * 1e3:.1f}", f"{gaps.worst_gap * 1e3:.1f}",
        judged(gaps.share, GAP, least=False), f"{GAP}",
    )  # fmt: skip
    made.add_row(
        f"first token (unknown prefix, known: {known.cached} tokens reused)",
        f"{known.cold * 1e3:.1f}", f"{known.warm * 1e3:.1f}", judged(known.share, WARM, least=False), f"{WARM}",
    )  # fmt: skip
    report([made], [gaps, known], options.json)


if __name__ == "__main__":
    main()
