"""What HTTP costs: anomaly scores per second from `atelier serve`, beside a bare FastAPI server of the same graph.

    python -m tests.load.http_anomalies [--seconds 5] [--rounds 3] [--package FOLDER] [--json FILE]

Starts the peer and the service, then measures one at a time with wrk while the others are idle: peer, direct
(`/studio/v1/anomalies`), gateway (`/v1/anomalies`), again and again. Medians are compared; a machine's noise hits all.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from model_store.manifest import Manifest
from service.loadtest.environment import describe
from tests import packages
from tests.e2e.conftest import end, short_folder, start
from tests.load import wrk
from tests.load.peers.server import serving

CONNECTIONS = (16, 1)
SERVERS = ("peer", "direct", "gateway")
AIMS = {"direct": 0.65, "gateway": 0.25}  # of the peer, at 16 connections
WARMUP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one server at one number of connections."""

    package: str
    server: str
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    of_peer: float
    rounds: list[float]


def write_body(folder: Path, package: Path) -> Path:
    """One request of the package's input, as JSON numbers."""
    manifest = Manifest.model_validate_json((package / "model.json").read_bytes())
    sizes = [size for size in manifest.graphs["reconstruct"].inputs[0].shape[1:] if isinstance(size, int)]
    values = np.random.default_rng(0).random(sizes, dtype=np.float32).round(4).ravel().tolist()
    body = folder / f"{manifest.name}.json"
    body.write_text(
        json.dumps({"model": manifest.name, "input": [{"tensor": {"data": values}}]}), encoding="utf-8"
    )
    return body


def measure(targets: dict[str, str], body: Path, *, seconds: int, rounds: int) -> Iterator[Line]:
    """Medians over the rounds, each server in turn in each round."""
    name = json.loads(body.read_bytes())["model"]
    for url in targets.values():
        wrk.post(url, body, connections=4, seconds=WARMUP_SECONDS)
    for connections in CONNECTIONS:
        seen: dict[str, list[wrk.Measured]] = {server: [] for server in targets}
        for _ in range(rounds):
            for server, url in targets.items():
                seen[server].append(wrk.post(url, body, connections=connections, seconds=seconds))
        base = median(each.requests_per_second for each in seen["peer"])
        for server, runs in seen.items():
            rate = median(each.requests_per_second for each in runs)
            yield Line(
                package=name,
                server=server,
                connections=connections,
                requests_per_second=rate,
                p50_ms=median(each.p50_ms for each in runs),
                p99_ms=median(each.p99_ms for each in runs),
                errors=sum(each.errors for each in runs),
                of_peer=rate / base,
                rounds=[each.requests_per_second for each in runs],
            )


def show(lines: list[Line], console: Console) -> None:
    """A table with each server beside the peer."""
    table = Table(title="Anomaly scores over HTTP", title_justify="left", box=None, padding=(0, 1))
    for column in ("package", "conn.", "server"):
        table.add_column(column, no_wrap=True)
    for column in ("requests/s", "of peer", "aim", "p50 ms", "p99 ms", "errors"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        aim = AIMS.get(line.server) if line.connections == CONNECTIONS[0] else None
        colour = "" if aim is None else "green" if line.of_peer >= aim else "red"
        share = f"{line.of_peer:.2f}"
        table.add_row(
            line.package, str(line.connections), line.server, f"{line.requests_per_second:,.0f}",
            f"[{colour}]{share}[/]" if colour else share, "" if aim is None else f"{aim:.2f}",
            f"{line.p50_ms:.2f}", f"{line.p99_ms:.2f}", str(line.errors),
        )  # fmt: skip
    console.print(table)


def run(folder: Path, given: Path | None, *, seconds: int, rounds: int) -> list[Line]:
    """Start everything, measure every package, stop everything."""
    store = folder / "store"
    measured = [packages.autoencoder(store, name="tiny-784", size=28)]
    if given is not None:
        name, version = given.resolve().parts[-2:]
        measured.append(store / name / version)
        shutil.copytree(given, measured[-1])
    lines: list[Line] = []
    service = start(folder, "--store", str(store))
    try:
        for package in measured:
            with serving("tests.load.peer_fastapi", str(package)) as other:
                bases = dict(zip(SERVERS, (other, f"{service.url}/studio", service.url), strict=True))
                targets = {server: f"{base}/v1/anomalies" for server, base in bases.items()}
                lines += measure(targets, write_body(folder, package), seconds=seconds, rounds=rounds)
    finally:
        end(service)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--package", type=Path, help="another package folder to measure, <name>/<version>")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    console = Console(highlight=False)
    try:
        wrk.check()
    except wrk.WrkMissingError as error:
        console.print(f"[red]{error}[/]")
        raise SystemExit(1) from None
    with short_folder() as folder:
        lines = run(folder, options.package, seconds=options.seconds, rounds=options.rounds)
    show(lines, console)
    if options.json:
        figures = {"environment": describe(), "lines": [asdict(line) for line in lines]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
