"""Anomaly scores per second of `atelier serve`, of FastAPI without batching, of LitServe and of BentoML: one graph, one run, medians.

    python -m tests.load.item_peers [--at DIR] [--package FOLDER] [--cases 1x16 1x1 32x16 32x1 1000x1] [--servers NAME ...]
                                    [--seconds 5] [--rounds 3] [--json FILE]

A case is so many items of 28x28 in each request, over so many connections, sent by wrk; tensors as lists of numbers. In each round every
server takes every case in turn, with the peers suspended that are not in turn, and so does the bare graph in this process, in batches
of a request. How each peer is run (workers, threads, how long a batch waits) is tried out first, for each case, and what gives most is
kept. DIR keeps the peers' environment, which is made with the first run; without it, it is made for this run.
"""

import argparse
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import requests
from rich.console import Console
from rich.table import Table

from model_store.store import Package
from tests.e2e.conftest import end, short_folder, start
from tests.load import wrk
from tests.load.item_runs import SHIPPED, Bare, body, package_at, pictures
from tests.load.peers.environment import environment
from tests.load.peers.scoring import Setting
from tests.load.peers.server import Peer, running
from tests.load.text_runs import judged, report, table

GRAPH, TWO = "graph", "graph, 2 threads"
DIRECT, GATEWAY = "atelier", "atelier, gateway"
FASTAPI, LITSERVE, BENTOML = "fastapi", "litserve", "bentoml"
OURS: Final = (DIRECT, GATEWAY)
SETTINGS: Final[dict[str, tuple[Setting, ...]]] = {
    FASTAPI: (Setting(), Setting(threads=2)),
    LITSERVE: (Setting(wait=0.001), Setting(wait=0.005), Setting(workers=2, wait=0.001)),
    BENTOML: (Setting(), Setting(threads=2), Setting(workers=2)),
}
_MODULES: Final = {
    FASTAPI: ("tests.load.peer_fastapi", "openapi.json"),
    LITSERVE: ("tests.load.peers.litserve_server", "health"),
    BENTOML: ("tests.load.peers.bento_server", "readyz"),
}
_REQUIREMENTS: Final = ("litserve==0.2.19", "bentoml==1.4.39", "onnxruntime==1.31.1")
_CLOSE: Final = 1e-3  # how far scores of one item may be apart: four decimals, other batches
_TRIAL_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Case:
    """So many items in each request, over so many connections."""

    items: int
    connections: int

    @classmethod
    def of(cls, text: str) -> "Case":
        """From `32x16`."""
        items, connections = text.split("x")
        return cls(int(items), int(connections))


AIMS: Final = {
    (FASTAPI, Case(1, 16)): 0.65,
    (LITSERVE, Case(1, 16)): 3.0,
    (GRAPH, Case(32, 16)): 0.8,
}
"""What direct answers should be of a server's, by server and case."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs; a peer with its setting."""

    name: str
    url: str
    setting: Setting | None = None
    peer: Peer | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While it is measured."""
        if self.peer:
            self.peer.resume()
        yield
        if self.peer:
            self.peer.suspend()


@dataclass(frozen=True, slots=True)
class Found:
    """What one run of a case gave. The bare graph has no requests."""

    items_per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one server in one case; direct answers as a multiple of its rate: the median of the rounds' ratios."""

    server: str
    case: Case
    setting: Setting | None
    items_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    direct: float | None
    aim: float | None
    rounds: list[float]


class Contest:
    """All servers, the bare graph, and what is sent."""

    def __init__(self, package: Package, servers: Sequence[Server], folder: Path) -> None:
        self._held, self.servers, self._folder = package.manifest, servers, folder
        self._graphs = {GRAPH: Bare(package, 1), TWO: Bare(package, 2)}

    def body(self, items: int) -> Path:
        """A file with a request."""
        path = self._folder / f"{items}.json"
        if not path.exists():
            path.write_bytes(body(self._held, "flat", items))
        return path

    def agree(self, server: Server, items: int) -> str | None:
        """Ask once: why the server does not answer, or gives other scores than the graph; None: it does."""
        with server.turn():
            answer = requests.post(
                f"{server.url}/v1/anomalies",
                self.body(items).read_bytes(),
                headers={"content-type": "application/json"},
                timeout=60,
            )
        if not answer.ok:
            return f"{answer.status_code} {answer.text[:200]}"
        wanted = self._graphs[GRAPH].score(pictures(self._held, items))
        return None if np.allclose(scores_of(answer.json()), wanted, atol=_CLOSE) else "other scores"

    def run(self, server: Server, case: Case, seconds: int) -> Found:
        """One run of a case."""
        url = f"{server.url}/v1/anomalies"
        with server.turn():
            seen = wrk.post(url, self.body(case.items), connections=case.connections, seconds=seconds)
        return Found(seen.requests_per_second * case.items, seen.p50_ms, seen.p99_ms, seen.errors)

    def alone(self, case: Case, seconds: float) -> Iterator[tuple[str, Found]]:
        """The same items without a server."""
        for name, graph in self._graphs.items():
            yield name, Found(graph.rate(case.items, seconds))


def scores_of(answer: Any) -> list[float]:
    """The scores in any server's answer."""
    if isinstance(answer, list):
        return answer
    return answer["scores"] if "scores" in answer else [each["score"] for each in answer["data"]]


def candidates(contest: Contest, case: Case) -> dict[str, list[Server]]:
    """Who takes part in a case, in every setting; who cannot is named."""
    able: dict[str, list[Server]] = defaultdict(list)
    for server in contest.servers:
        reason = contest.agree(server, case.items)
        if reason is None:
            able[server.name].append(server)
        else:
            print(f"{server.name} does not take {case.items} items: {reason}")
    return able


def best(contest: Contest, case: Case, seconds: int = _TRIAL_SECONDS) -> list[Server]:
    """Each server as it gives most in this case. Every one is warm behind it."""
    return [
        max(group, key=lambda server: contest.run(server, case, seconds).items_per_second)
        for group in candidates(contest, case).values()
    ]


def measure(contest: Contest, cases: Sequence[Case], *, seconds: int, rounds: int) -> list[Line]:
    """All rounds."""
    chosen = {case: best(contest, case) for case in cases}
    seen: dict[tuple[str, Case], list[Found]] = defaultdict(list)
    for _ in range(rounds):
        for case, servers in chosen.items():
            for server in servers:
                seen[server.name, case].append(contest.run(server, case, seconds))
            for name, found in contest.alone(case, seconds / 2):
                seen[name, case].append(found)
    settings = {(each.name, case): each.setting for case, servers in chosen.items() for each in servers}
    return compared(seen, settings)


def compared(
    seen: Mapping[tuple[str, Case], Sequence[Found]], settings: Mapping[tuple[str, Case], Setting | None]
) -> list[Line]:
    """Each server's figures beside direct answers of the same round."""
    lines = []
    for (server, case), runs in seen.items():
        rates = [each.items_per_second for each in runs]
        # Who answered nothing in all of a round cannot be compared in it.
        ratios = [
            ours.items_per_second / its
            for ours, its in zip(seen.get((DIRECT, case), ()), rates, strict=False)
            if its
        ]
        lines.append(
            Line(
                server,
                case,
                settings.get((server, case)),
                median(rates),
                median(each.p50_ms for each in runs),
                median(each.p99_ms for each in runs),
                sum(each.errors for each in runs),
                median(ratios) if ratios else None,
                AIMS.get((server, case)),
                rates,
            )
        )
    return lines


def show(name: str, lines: Sequence[Line]) -> Table:
    """One line for each case and server."""
    columns = ("items", "conn.", "server", "items/s", "requests/s", "p50 ms", "p99 ms", "errors")
    made = table(f"{name}: anomaly scores", (*columns, "atelier is", "aim", "run with"), words=0)
    for line in lines:
        bare = line.server in (GRAPH, TWO)
        compare = line.direct is not None and line.server != DIRECT
        made.add_row(
            str(line.case.items), str(line.case.connections), line.server, f"{line.items_per_second:,.0f}",
            "" if bare else f"{line.items_per_second / line.case.items:,.1f}",
            "" if bare else f"{line.p50_ms:.2f}", "" if bare else f"{line.p99_ms:.2f}", str(line.errors or ""),
            judged(line.direct or 0.0, line.aim) if compare else "", "" if line.aim is None else str(line.aim),
            "" if line.setting is None else
            f"{line.setting.workers} x {line.setting.threads} threads, {line.setting.wait * 1e3:g} ms",
        )  # fmt: skip
    return made


@contextmanager
def servers(package: Package, at: Path, wanted: Sequence[str], folder: Path) -> Iterator[list[Server]]:
    """All that are wanted, running; the peers suspended, in every setting."""
    found: list[Server] = []
    with ExitStack() as stack:
        if not {LITSERVE, BENTOML}.isdisjoint(wanted):
            own = environment(at / "servers", _REQUIREMENTS)
        for name in wanted:
            for setting in SETTINGS.get(name, ()):
                module, ready = _MODULES[name]
                python = None if name == FASTAPI else own
                peer = stack.enter_context(
                    running(module, str(package.folder), *setting.arguments, python=python, ready=ready)
                )
                peer.suspend()
                found.append(Server(name, peer.url, setting, peer))
        if not set(OURS).isdisjoint(wanted):
            held = package.manifest
            shutil.copytree(package.folder, folder / "store" / held.name / held.version)
            service = start(folder, "--store", str(folder / "store"))
            stack.callback(end, service)
            ours = {DIRECT: f"{service.url}/studio", GATEWAY: service.url}
            found = [*(Server(name, url) for name, url in ours.items() if name in wanted), *found]
        yield found


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cases = [Case(1, 16), Case(1, 1), Case(32, 16), Case(32, 1), Case(1000, 1)]
    names = [*OURS, *SETTINGS]
    parser.add_argument("--at", type=Path, help="folder that keeps the peers' environment")
    parser.add_argument("--package", type=Path, help=f"package folder, <name>/<version> (default: {SHIPPED})")
    parser.add_argument("--cases", type=Case.of, nargs="+", default=cases, metavar="ITEMSxCONNECTIONS")
    parser.add_argument("--servers", nargs="+", default=names, choices=names)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    try:
        wrk.check()
    except wrk.WrkMissingError as error:
        Console().print(f"[red]{error}[/]")
        raise SystemExit(1) from None
    package = package_at(options.package)
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        at = (options.at or folder).resolve()
        there = stack.enter_context(servers(package, at, options.servers, folder))
        contest = Contest(package, there, folder)
        lines = measure(contest, options.cases, seconds=options.seconds, rounds=options.rounds)
    report([show(package.manifest.name, lines)], lines, options.json)


if __name__ == "__main__":
    main()
