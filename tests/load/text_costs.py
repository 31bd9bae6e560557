"""What sampling costs of a step, and how much memory a model takes beside its weights and its caches.

    python -m tests.load.text_costs --store DIR --model NAME [--streams 8] [--rounds 5] [--json FILE]

In process, two threads. The same streams run greedily and sampled (top-p, top-k, all penalties), in turn; their decode
steps are compared. The resident set is that of a fresh process with nothing else in it, after all its slots were used.
"""

import argparse
import asyncio
import math
import multiprocessing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
from uvicorn.loops.auto import auto_loop_factory

from deployments.metrics import Metrics
from deployments.studio import Studio
from model_store.manifest import Manifest
from model_store.store import Store
from tests.load.text_runs import Case, judged, opened, report, run, table
from tests.load.text_streams import graph_steps

OVERHEAD = 0.05  # of a greedy step
BESIDE = 250.0  # MB beside weights and caches
SLOTS, KEPT, CONTEXT = 16, 8, 576
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Sampling:
    """Milliseconds of a decode step, medians over the rounds; engine: from one token to the next, all included."""

    greedy_ms: float
    sampled_ms: float
    overhead: float
    engine_greedy_ms: float
    engine_sampled_ms: float
    engine_overhead: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes of 10^6 bytes."""

    resident: float
    weights: float
    caches: float
    beside: float


async def step(studio: Studio, metrics: Metrics, model: str, case: Case, seed: int) -> tuple[float, float]:
    """Milliseconds of the graph, and of all, per decode step."""
    steps, _, seconds = graph_steps(metrics, model)
    found = await run(studio, model, case, seed=seed)
    after, _, busy = graph_steps(metrics, model)
    return (busy - seconds) / (after - steps) * 1e3, case.streams / found.decode * 1e3


async def sampling(studio: Studio, metrics: Metrics, model: str, streams: int, rounds: int) -> Sampling:
    """Greedy and sampled in turn; medians of the rounds and of their ratios."""
    cases = [Case(streams, 32, 64, sampled) for sampled in (False, True)]
    for case in cases:
        await run(studio, model, case, seed=99)
    found = [[await step(studio, metrics, model, case, seed) for case in cases] for seed in range(rounds)]
    graph, engine = ([tuple(pair[kind] for pair in pairs) for pairs in found] for kind in (0, 1))

    def summary(pairs: list[tuple[float, ...]]) -> tuple[float, float, float]:
        plain, drawn = (median(pair[place] for pair in pairs) for place in (0, 1))
        return plain, drawn, median(pair[1] / pair[0] for pair in pairs) - 1

    return Sampling(*summary(graph), *summary(engine))


def resident(store: Path, model: str) -> float:
    """Megabytes of this process after every slot was used to its end."""
    with opened(store, [model], slots=SLOTS, prefix_slots=KEPT, context=CONTEXT) as (studio, _):
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            runner.run(run(studio, model, Case(SLOTS, 512, 64)))
        return psutil.Process().memory_info().rss / _MB


def memory(store: Path, model: str) -> Memory:
    """Of a fresh process."""
    package = Store(str(store)).open(model)
    held = package.manifest
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        taken = pool.apply(resident, (store, model))
    weights = sum(entry.bytes for name, entry in held.files.items() if _is_graph(name)) / _MB
    caches = (SLOTS + KEPT) * row_bytes(held) / _MB
    return Memory(taken, weights, caches, taken - weights - caches)


def _is_graph(name: str) -> bool:
    return "golden" not in name and not name.endswith((".json", ".jinja", ".md"))


def row_bytes(held: Manifest) -> int:
    """Bytes of one slot's state with the whole context."""
    if held.text is None:
        return 0
    sizes = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1, "int32": 4, "int64": 8}
    return sum(
        math.prod(size if isinstance(size, int) else CONTEXT for size in state.shape) * sizes[state.dtype]
        for state in held.text.state
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    taken = memory(options.store, options.model)
    with opened(options.store, [options.model], slots=options.streams) as (studio, metrics):
        work = sampling(studio, metrics, options.model, options.streams, options.rounds)
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            cost = runner.run(work)
    steps = table(
        f"{options.model}: a decode step of {options.streams} rows",
        ("", "greedy ms", "sampled ms", "more", "aim"),
    )
    aim = f"{OVERHEAD:.2f}"
    figures = asdict(cost)
    for name, prefix in (("graph", ""), ("engine", "engine_")):
        more = judged(figures[f"{prefix}overhead"], OVERHEAD, least=False, form=".3f")
        steps.add_row(
            name, f"{figures[f'{prefix}greedy_ms']:.2f}", f"{figures[f'{prefix}sampled_ms']:.2f}", more, aim
        )
    room = table(
        f"{options.model}: memory in MB, {SLOTS} slots and {KEPT} kept prefixes of {CONTEXT} tokens",
        ("resident", "weights", "caches", "beside", "aim"), words=0,
    )  # fmt: skip
    beside = judged(taken.beside, BESIDE, least=False, form=",.0f")
    room.add_row(
        f"{taken.resident:,.0f}", f"{taken.weights:,.0f}", f"{taken.caches:,.0f}", beside, f"{BESIDE:,.0f}"
    )
    report([steps, room], [cost, taken], options.json)


if __name__ == "__main__":
    main()
