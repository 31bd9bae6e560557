"""What JSON costs: reading and writing 32 items as nested lists, base64 float32 and PNG, as a share of the request's time.

    python -m tests.load.item_costs [--package FOLDER] [--items 32] [--requests 50] [--rounds 5] [--json FILE]

One request at a time to the service's own application in this process, without a socket. Reading is all from the body to arrays: parsing,
validation, base64, checking numbers, decoding pictures. Writing is all from the model's arrays to the body. The rest of the
request's time is the model's, and the way there and back. In each round every form takes its turn.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from prometheus_client import CollectorRegistry
from rich.table import Table
from starlette.types import ASGIApp

from deployments.config import HostConfig
from deployments.messages import Reply, Request
from deployments.metrics import Metrics
from deployments.model import OneShotModel, open_model
from deployments.studio import Studio
from model_store.session import choose_device
from model_store.store import Package
from service.api import create_app
from service.settings import Settings
from tests.load.image_runs import run
from tests.load.item_runs import FORMS, SHIPPED, body, package_at
from tests.load.text_runs import judged, report, table

ROUTES: Final = ("anomalies", "reconstructions")
AIM: Final = 0.30  # of the request's time


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one request."""

    read: float
    model: float
    write: float
    whole: float


@dataclass(frozen=True, slots=True)
class Line:
    """Medians over all requests; `share`: of reading and writing in the whole."""

    route: str
    form: str
    sent_kilobytes: float
    answered_kilobytes: float
    spent: Spent
    share: float


class Watched(Studio):
    """One model, with the times at which its work began and ended."""

    def __init__(self, model: OneShotModel, metrics: Metrics) -> None:
        super().__init__([model], metrics)
        self.began = self.ended = self.read = self.write = self.model = 0.0
        # What reads items into arrays, and what makes outputs of arrays.
        for part, name, kind in (
            (model.scores, "prepare", "read"),
            (model.scores, "finish", "write"),
            (model.autoencoding, "reconstruct", "read"),
            (model.autoencoding, "reconstructed", "write"),
        ):
            setattr(part, name, self._timed(kind, getattr(part, name)))

    def _timed(self, kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = perf_counter()
            found = work(*arguments)
            setattr(self, kind, perf_counter() - began)
            return found

        return timed

    async def call(self, request: Request) -> Reply:
        """As it is, timed."""
        self.began = perf_counter()
        reply = await super().call(request)
        self.ended = perf_counter()
        self.model = reply.timings.model if reply.timings else 0.0
        return reply


@contextmanager
def watched(package: Package) -> Iterator[tuple[Watched, ASGIApp]]:
    """The service's application over the package, as a host with its defaults runs it."""
    metrics = Metrics(CollectorRegistry())
    model = open_model(package, HostConfig(), choose_device("cpu"), metrics)
    if not isinstance(model, OneShotModel):
        raise TypeError(f"{package.manifest.name} reads no items")
    studio = Watched(model, metrics)
    try:
        yield studio, create_app(studio, Settings(), metrics)
    finally:
        studio.close()


async def ask(app: ASGIApp, route: str, sent: bytes) -> bytes:
    """POST without a socket; the answer's body."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/v1/{route}",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(sent))],
    }
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": sent}

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    start, *rest = said
    answer = b"".join(each["body"] for each in rest)
    if start["status"] != 200:
        raise ValueError(answer.decode())
    return answer


async def spend(studio: Watched, app: ASGIApp, route: str, sent: bytes) -> Spent:
    """One request."""
    began = perf_counter()
    await ask(app, route, sent)
    ended = perf_counter()
    read, write = studio.began - began + studio.read, ended - studio.ended + studio.write
    return Spent(read, studio.model, write, ended - began)


async def measure(
    studio: Watched, app: ASGIApp, package: Package, *, items: int, requests: int, rounds: int
) -> list[Line]:
    """Every form at every route, in turns."""
    cases = {(route, form): body(package.manifest, form, items) for route, form in product(ROUTES, FORMS)}
    answers = {case: await ask(app, case[0], sent) for case, sent in cases.items()}
    seen: dict[tuple[str, str], list[Spent]] = {case: [] for case in cases}
    for _ in range(rounds):
        for (route, form), sent in cases.items():
            seen[route, form] += [await spend(studio, app, route, sent) for _ in range(requests)]
    return [
        Line(
            *case,
            len(cases[case]) / 1000,
            len(answers[case]) / 1000,
            Spent(*(median(part) for part in zip(*map(astuple, spent), strict=True))),
            median((each.read + each.write) / each.whole for each in spent),
        )
        for case, spent in seen.items()
    ]


def show(name: str, items: int, lines: Sequence[Line]) -> Table:
    """One line for each form and route."""
    columns = ("route", "form", "sent kB", "answered kB", "read ms", "model ms", "write ms", "request ms")
    made = table(f"{name}: requests of {items} items", (*columns, "read + write", "aim"), words=2)
    for line in lines:
        made.add_row(
            line.route, line.form, f"{line.sent_kilobytes:,.0f}", f"{line.answered_kilobytes:,.0f}",
            *(f"{seconds * 1e3:.2f}" for seconds in astuple(line.spent)),
            judged(line.share, AIM, least=False), f"{AIM:.2f}",
        )  # fmt: skip
    return made


def main() -> None:
    # The same few items over and over have drifted, rightly.
    logging.getLogger("deployments.reconstruction.drift").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, help=f"package folder, <name>/<version> (default: {SHIPPED})")
    parser.add_argument("--items", type=int, default=32, help="of a request")
    parser.add_argument("--requests", type=int, default=50, help="of each form in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    package = package_at(options.package)
    with watched(package) as (studio, app):
        sizes = {"items": options.items, "requests": options.requests, "rounds": options.rounds}
        lines = run(measure(studio, app, package, **sizes))
    report([show(package.manifest.name, options.items, lines)], lines, options.json)


if __name__ == "__main__":
    main()
