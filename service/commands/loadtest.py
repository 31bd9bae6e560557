"""`atelier loadtest`: options in, tables and JSON out. What is measured and how is `service.loadtest`'s business."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console
from rich.text import Text
from uvicorn.loops.auto import auto_loop_factory

from service.loadtest.display import live, summary, verdict
from service.loadtest.environment import describe
from service.loadtest.execute import Outcome, execute
from service.loadtest.plan import LoadTestError, Plan
from service.loadtest.report import parse_bounds, series, summarize
from service.loadtest.workload import Task

REQUESTS: Final = 200
CONCURRENCY: Final = 8
INTERRUPTED: Final = 130  # what a shell reports of a command that Ctrl-C ended

TARGET: Final = "Which server, which model"
LOAD: Final = "How requests arrive"
ASKED: Final = "What one request asks for"
JUDGED: Final = "What comes out"

Url: TypeAlias = Annotated[
    str, typer.Option(rich_help_panel=TARGET, help="Server, or server/host to go past the gateway.")
]
TaskName: TypeAlias = Annotated[Task, typer.Option(rich_help_panel=TARGET, help="What to ask for.")]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(rich_help_panel=TARGET, help="Model name (default: the first that can do the task)."),
]
Rate: TypeAlias = Annotated[
    float | None, typer.Option(rich_help_panel=LOAD, help="Open loop: requests per second, Poisson arrivals.")
]
Concurrency: TypeAlias = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=LOAD, help=f"Closed loop: requests always in flight (default: {CONCURRENCY})."
    ),
]
Requests: TypeAlias = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=LOAD,
        help=f"Stop after so many requests (default: {REQUESTS}, unless --duration is given).",
    ),
]
Duration: TypeAlias = Annotated[
    float | None, typer.Option(rich_help_panel=LOAD, help="Start no new request after so many seconds.")
]
Warmup: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, rich_help_panel=LOAD, help="Requests before the clock starts (default: twice the concurrency)."
    ),
]
Prompt: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=ASKED, help="Text to continue, words or class to draw; several take turns."),
]
MaxTokens: TypeAlias = Annotated[
    int, typer.Option(min=1, rich_help_panel=ASKED, help="Tokens to generate for one prompt.")
]
Stream: TypeAlias = Annotated[
    bool, typer.Option(rich_help_panel=ASKED, help="Stream text, to time its tokens.")
]
Batch: TypeAlias = Annotated[
    int, typer.Option(min=1, rich_help_panel=ASKED, help="Pictures or items in one request.")
]
Steps: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        min=1, rich_help_panel=ASKED, help="Steps of a picture; several take turns. Default: the model's own."
    ),
]
Guidance: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale", min=1, rich_help_panel=ASKED, help="How far pictures go where the prompt leads."
    ),
]
Goodput: TypeAlias = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=JUDGED,
        help="Milliseconds a good request stays under, as in ttft:200,tpot:50,e2e:1000.",
    ),
]
Attain: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        max=100,
        rich_help_panel=JUDGED,
        help="Percent of requests that must be good, or the exit status is 1.",
    ),
]
Timeout: TypeAlias = Annotated[
    float, typer.Option(rich_help_panel=LOAD, help="Seconds after which a request counts as failed.")
]
Header: TypeAlias = Annotated[
    list[str] | None, typer.Option(rich_help_panel=TARGET, help="Sent with every request, as 'Name: value'.")
]
Seed: TypeAlias = Annotated[
    int, typer.Option(min=0, rich_help_panel=LOAD, help="Same seed: same arrivals, same requests.")
]
Json: TypeAlias = Annotated[
    str | None,
    typer.Option(rich_help_panel=JUDGED, help="File for the figures as JSON; '-' is standard output."),
]


def loadtest(  # noqa: PLR0917 - each argument is one option of the command
    url: Url = "http://127.0.0.1:8000",
    task: TaskName = Task.TEXT,
    model: Model = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    requests: Requests = None,
    duration: Duration = None,
    warmup: Warmup = None,
    prompt: Prompt = None,
    max_tokens: MaxTokens = 64,
    stream: Stream = True,
    batch: Batch = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    goodput: Goodput = None,
    attain: Attain = 99.0,
    timeout: Timeout = 120.0,
    header: Header = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Measure a running service: latencies, time to first token, throughput.

    --rate: requests arrive as from independent users, however slow answers are.
    --concurrency: so many requests are in flight at all times.
    Exit status: 1 if nothing was answered or too few requests were good.
    """
    if rate is not None and concurrency is not None:
        raise typer.BadParameter("Choose --rate (open loop) or --concurrency (closed loop), not both.")
    _check_positive(rate=rate, concurrency=concurrency, requests=requests, duration=duration, timeout=timeout)
    in_flight = concurrency or (CONCURRENCY if rate is None else 1)
    plan = Plan(
        url=_base_url(url),
        task=task,
        model=model,
        rate=rate,
        concurrency=in_flight,
        requests=requests if requests or duration else REQUESTS,
        seconds=duration,
        warmup=2 * in_flight if warmup is None else warmup,
        seed=seed,
        timeout_seconds=timeout,
        prompts=tuple(prompt or ()),
        max_tokens=max_tokens,
        stream=stream,
        per_request=batch,
        steps=tuple(steps or ()),
        guidance=guidance,
        headers=_headers(header or ()),
        bounds=_bounds(goodput, task is Task.TEXT and stream),
        attain=attain / 100,
    )
    _check_writable(json)
    raise typer.Exit(_measure(plan, json))


def _measure(plan: Plan, json: str | None) -> int:
    """Run, show, write; return the exit status."""
    console = Console(stderr=json == "-", highlight=False)
    try:
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            outcome = runner.run(execute(plan, partial(live, console, plan)))
    except LoadTestError as error:
        Console(stderr=True, highlight=False).print(Text(str(error), style="red"))
        return 1
    except KeyboardInterrupt:  # before the clock started: nothing to show
        return INTERRUPTED
    latencies = series(outcome.records, scheduled=plan.rate is not None)
    figures = summarize(outcome.records, plan.bounds, latencies, outcome.most_in_flight)
    console.print(summary(figures, latencies, console.width))
    passed, sentence = verdict(plan, figures)
    console.print(sentence)
    if json is not None:
        _write(json, _result(plan, outcome, figures))
    return INTERRUPTED if outcome.interrupted else int(not passed)


def _result(plan: Plan, outcome: Outcome, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_id": outcome.card["id"],
        "model_version": outcome.card.get("version"),
        **plan.as_json(),
        "interrupted": outcome.interrupted,
        **figures,
        "environment": describe(),
    }


def _write(target: str, result: Mapping[str, Any]) -> None:
    body = orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if target == "-":
        typer.echo(body, nl=False)
    else:
        Path(target).write_bytes(body)


def _check_positive(**options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not 0 < value < float("inf"):
            raise typer.BadParameter(f"--{name} must be a positive number, not {value:g}.")


def _check_writable(json: str | None) -> None:
    if json not in (None, "-") and not Path(json).absolute().parent.is_dir():
        raise typer.BadParameter(f"--json names a folder that does not exist: {Path(json).parent}")


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise typer.BadParameter(f"--url must look like http://127.0.0.1:8000, not {url!r}.")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _headers(pairs: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not name.strip() or not pair.isprintable():
            raise typer.BadParameter(f"--header must look like 'Name: value', not {pair!r}.")
        headers[name.strip()] = value.strip()
    return headers


def _bounds(goodput: str | None, streams: bool) -> dict[str, float]:
    if goodput is None:
        return {}
    try:
        bounds = parse_bounds(goodput)
    except ValueError as error:
        raise typer.BadParameter(f"--goodput: {error}.") from error
    if not streams and bounds.keys() - {"e2el"}:
        raise typer.BadParameter(
            "--goodput can bound ttft and tpot only where text is streamed; e2e works everywhere."
        )
    return bounds
