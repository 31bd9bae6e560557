"""Tokens per second of the engine in this process beside llama.cpp, onnxruntime-genai and transformers: one model, one run, medians.

    python -m tests.load.text_peers --prepare DIR          make the model, install and build the peers (takes a while)
    python -m tests.load.text_peers --at DIR [--precision fp32 int4] [--streams 1 8 16 32] [--prompts 32 512]
                                    [--tokens 64] [--rounds 5] [--peers NAME ...] [--json FILE]

The model has the shape of a Llama of 135 M parameters and random weights. In each round every engine takes every case
in turn, two threads each, the others idle. `decode` counts tokens after the last stream's first one, `whole` includes
the prompts' time. llama.cpp is measured by its own batched bench, which samples nothing; its sampled figures are its
plain ones. A peer that is not there is left out with a line that says so.
"""

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from rich.table import Table
from uvicorn.loops.auto import auto_loop_factory

from deployments.studio import Studio
from tests.load.peers import llama, prepare, worker
from tests.load.text_runs import Case, Rates, judged, medians, opened, report, run, table

OURS = "atelier"
AIMS = {
    ("llama.cpp", 1): 1.0,
    ("llama.cpp", 8): 1.2,
    ("llama.cpp", 16): 1.2,
    ("genai", 1): 1.0,
    ("genai", 8): 2.5,
    ("genai", 16): 2.5,
}
"""What ours should be of a peer's decode rate, by peer and streams."""
Key = tuple[str, str, Case]
Measured = dict[Key, list[Rates]]
"""One entry a round."""


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one engine in one case, and ours as a multiple of it: the median of the rounds' ratios."""

    precision: str
    engine: str
    case: Case
    decode: float
    whole: float
    first: float
    ours: float
    ours_whole: float
    aim: float | None


class Contest:
    """Our engine and the peers that are there, at one precision."""

    def __init__(self, at: Path, precision: str, peers: Sequence[str], stack: ExitStack) -> None:
        self.precision = precision
        self.model = prepare.package_name(precision)
        self._gguf = at / prepare.gguf_name(precision)
        self._bench = at / prepare.LLAMA_BENCH
        store = at / prepare.STORE
        self._studio: Studio | None = None
        if OURS in peers and (store / self.model).is_dir():
            self._studio, _ = stack.enter_context(opened(store, [self.model], slots=32, context=1024))
        self._llama = "llama.cpp" in peers and self._gguf.is_file() and self._bench.is_file()
        self._workers = {
            name: stack.enter_context(worker.started(prepare.worker_command(at, name, precision)))
            for name in prepare.WORKERS
            if name in peers and prepare.can_work(at, name, precision)
        }

    @property
    def engines(self) -> set[str]:
        """Names of those that take part."""
        there = {OURS: self._studio is not None, "llama.cpp": self._llama}
        return {name for name, is_there in there.items() if is_there} | set(self._workers)

    def round(self, cases: Sequence[Case], seed: int) -> Iterator[tuple[str, Case, Rates]]:
        """Every engine takes every case once."""
        for case in cases:
            if self._studio is not None:
                with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
                    yield OURS, case, runner.run(run(self._studio, self.model, case, seed=seed))
            for name, peer in self._workers.items():
                yield name, case, peer.run(case)
            if self._llama:
                yield "llama.cpp", case, llama.run(self._bench, self._gguf, case)


def measure(contest: Contest, cases: Sequence[Case], rounds: int) -> Measured:
    """All rounds, after one short case for warmth."""
    list(contest.round([Case(2, 8, 4)], seed=99))
    seen: Measured = defaultdict(list)
    for number in range(rounds):
        for engine, case, found in contest.round(cases, number):
            seen[contest.precision, engine, case].append(found)
    return seen


def compared(found: Measured) -> list[Line]:
    """Each engine's figures beside ours in the same round: a shared machine is faster in one minute than in the next."""
    lines = []
    for (precision, engine, case), runs in found.items():
        its = medians(runs)
        pairs = list(zip(found.get((precision, OURS, case), ()), runs, strict=False))
        share = median(ours.decode / theirs.decode for ours, theirs in pairs) if pairs else 0.0
        whole = median(ours.whole / theirs.whole for ours, theirs in pairs) if pairs else 0.0
        aim = AIMS.get((engine, case.streams))
        lines.append(Line(precision, engine, case, its.decode, its.whole, its.first, share, whole, aim))
    return lines


def show(lines: Sequence[Line]) -> Table:
    """One line for each engine and case."""
    columns = ("precision", "sampling", "engine", "prompt", "streams", "decode tok/s", "ours is", "aim")
    made = table("Text, in process", (*columns, "whole tok/s", "ours is", "first token s"), words=3)
    for line in lines:
        alone = line.engine == OURS
        made.add_row(
            line.precision, "sampled" if line.case.sampled else "greedy", line.engine, str(line.case.prompt),
            str(line.case.streams), f"{line.decode:,.0f}", "" if alone else judged(line.ours, line.aim),
            "" if line.aim is None else f"{line.aim:.1f}", f"{line.whole:,.0f}",
            "" if alone else f"{line.ours_whole:.2f}", f"{line.first:.2f}",
        )  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--prepare", type=Path, metavar="DIR", help="make model and peers in this folder")
    where.add_argument("--at", type=Path, metavar="DIR", help="folder that --prepare made")
    parser.add_argument("--precision", nargs="+", default=["fp32", "int4"], choices=prepare.PRECISIONS)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--prompts", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sampling", nargs="+", default=["greedy", "sampled"], choices=["greedy", "sampled"])
    parser.add_argument("--peers", nargs="+", default=[OURS, "llama.cpp", *prepare.WORKERS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.prepare:
        prepare.prepare(options.prepare)
        return
    cases = [
        Case(streams, prompt, options.tokens, sampling == "sampled")
        for sampling, prompt, streams in product(options.sampling, options.prompts, options.streams)
    ]
    found: Measured = {}
    for precision in options.precision:
        with ExitStack() as stack:
            contest = Contest(options.at, precision, options.peers, stack)
            for name in sorted(set(options.peers) - contest.engines):
                print(f"{precision}: no {name} (see --prepare)")
            found |= measure(contest, cases, options.rounds)
    lines = compared(found)
    report([show(lines)], lines, options.json)


if __name__ == "__main__":
    main()
