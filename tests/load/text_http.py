"""What HTTP costs: tokens per second of streams over `atelier serve`, direct and by the gateway, beside the same engine in process.

    python -m tests.load.text_http --store DIR --model NAME [--streams 8 16] [--tokens 64] [--answers 3] [--rounds 5] [--json FILE]

Every stream asks again as soon as its answer is complete, with server-sent events over HTTP. In each round the three
take turns while the others are idle, on the same cores. The client does nothing but read until the answer's last event.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import yaml
from uvicorn.loops.auto import auto_loop_factory

from deployments.studio import Studio
from tests.e2e.conftest import end, short_folder, start
from tests.load.connection import AnswerError, Connection
from tests.load.text_runs import judged, opened, prompt, report, request, table, timed

AIMS: Final = {"direct": 0.95, "gateway": 0.90}
PROMPT: Final = 32
_END: Final = b"data: [DONE]"
Ask = Callable[[tuple[int, ...]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Line:
    """Median tokens per second, and what it is of the rate in process."""

    server: str
    streams: int
    tokens_per_second: float
    share: float
    rounds: list[float]


class Stream:
    """Posts completions over one connection and reads their events to the end."""

    def __init__(self, url: str, model: str, tokens: int) -> None:
        self._connection = Connection(f"{url}/v1/completions")
        self._fields: dict[str, Any] = {
            "model": model, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True,
        }  # fmt: skip

    async def ask(self, ids: tuple[int, ...]) -> None:
        """One answer. Raises AnswerError."""
        reader = await self._connection.begin(self._fields | {"prompt": ids})
        # The last event is followed by the end of the chunked body, and nothing else until the next request.
        tail = b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            read = await reader.read(1 << 16)
            if not read:
                raise AnswerError("the connection was closed")
            tail = (tail + read)[-64:]
        if _END not in tail:
            raise AnswerError(f"the stream ended with {tail!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def rate(asks: list[Ask], *, tokens: int, answers: int, seed: int) -> float:
    """Tokens per second of all streams together."""

    async def stream(number: int, ask: Ask) -> None:
        for answer in range(answers):
            await ask(prompt(PROMPT, 100_000 * seed + 100 * number + answer))

    began = perf_counter()
    await asyncio.gather(*(stream(number, ask) for number, ask in enumerate(asks)))
    return len(asks) * answers * tokens / (perf_counter() - began)


def in_process(studio: Studio, model: str, tokens: int) -> Ask:
    """One stream without HTTP."""

    async def ask(ids: tuple[int, ...]) -> None:
        await timed(studio, request(model, ids, tokens, temperature=0.0, reuse_prefix=True))

    return ask


async def measure(studio: Studio, url: str, options: argparse.Namespace) -> list[Line]:
    """Medians over the rounds."""
    model, tokens = options.model, options.tokens
    bases = {"direct": f"{url}/studio", "gateway": url}
    lines = []
    for streams in options.streams:
        connections = {
            server: [Stream(base, model, tokens) for _ in range(streams)] for server, base in bases.items()
        }
        asks: dict[str, list[Ask]] = {"in process": [in_process(studio, model, tokens)] * streams}
        asks |= {server: [each.ask for each in group] for server, group in connections.items()}
        seen: dict[str, list[float]] = {server: [] for server in asks}
        for each in asks.values():
            await rate(each, tokens=tokens, answers=1, seed=99)
        for number in range(options.rounds):
            for server, each in asks.items():
                seen[server].append(await rate(each, tokens=tokens, answers=options.answers, seed=number))
        for group in connections.values():
            for connection in group:
                connection.close()
        for server, rates in seen.items():
            pairs = zip(rates, seen["in process"], strict=True)
            share = median(its / base for its, base in pairs)
            lines.append(Line(server, streams, median(rates), share, rates))
    return lines


def hosts_file(folder: Path, store: Path, model: str, slots: int, threads: int = 2) -> Path:
    """One host with the model alone, as it is in process."""
    host = {
        "name": "studio",
        "store": str(store),
        "models": [model],
        "threads": threads,
        "slots": slots,
        "device": "cpu",
    }
    path = folder / "hosts.yaml"
    path.write_text(yaml.safe_dump({"hosts": [host]}), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--answers", type=int, default=3, help="of each stream in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    store, slots = options.store.resolve(), max(options.streams)
    with short_folder() as folder:
        service = start(folder, "--hosts", str(hosts_file(folder, store, options.model, slots)))
        try:
            with (
                opened(store, [options.model], slots=slots) as (studio, _),
                asyncio.Runner(loop_factory=auto_loop_factory()) as runner,
            ):
                lines = runner.run(measure(studio, service.url, options))
        finally:
            end(service)
    made = table(
        f"{options.model}: tokens per second of streams over HTTP",
        ("server", "streams", "tokens/s", "of in process", "aim"),
    )
    for line in lines:
        aim = AIMS.get(line.server)
        shown = "" if aim is None else f"{aim:.2f}"
        made.add_row(
            line.server, str(line.streams), f"{line.tokens_per_second:,.0f}", judged(line.share, aim), shown
        )
    report([made], lines, options.json)


if __name__ == "__main__":
    main()
