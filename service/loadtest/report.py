"""Records in, figures out. Keys are those of `vllm bench serve` where it has one, so that its tooling reads them.

Latencies are in milliseconds, rates per second. A failed request has no latency, but it counts in every share.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from service.loadtest.record import Record

Series: TypeAlias = npt.NDArray[np.float64]
Bounds: TypeAlias = Mapping[str, float]  # latency -> milliseconds that a good request stays under

PERCENTILES: Final = (50, 90, 95, 99)
# What a bound may be set on. `e2e` is how people say it, `e2el` what the reports call it.
BOUNDED: Final[Mapping[str, Callable[[Record], float | None]]] = {
    "ttft": lambda record: record.first_token,
    "tpot": lambda record: record.per_token,
    "e2el": lambda record: record.latency,
}


def summarize(
    records: Sequence[Record], bounds: Bounds, latencies: Mapping[str, Series], most_in_flight: int
) -> dict[str, Any]:
    """Every figure of a run, flat, as JSON takes it."""
    return {
        **totals(records),
        "max_concurrent_requests": most_in_flight,
        **goodput(records, bounds),
        **statistics(latencies),
    }


def series(records: Sequence[Record], *, scheduled: bool) -> dict[str, Series]:
    """All latencies of the answered requests, in milliseconds; those with nothing to show are left out.

    `scheduled`: the run had a schedule, so latency from it and the sender's own lag mean something.
    """
    done = [record for record in records if record.error is None]
    seconds: dict[str, list[float]] = {
        "ttft": [time for record in done if (time := record.first_token) is not None],
        "tpot": [time for record in done if (time := record.per_token) is not None],
        "itl": [gap for record in done for gap in record.gaps],
        "e2el": [record.latency for record in done],
    }
    if scheduled:
        seconds["e2el_from_schedule"] = [record.latency_from_schedule for record in done]
        seconds["send_lag"] = [record.lag for record in records]
    return {name: np.array(values) * 1e3 for name, values in seconds.items() if values}


def totals(records: Sequence[Record]) -> dict[str, Any]:
    """Count and rate. The duration runs from the start to the end of the last request, answered or not."""
    duration = max((record.ended for record in records), default=0.0)
    done = [record for record in records if record.error is None]
    counts = {
        "total_input_tokens": sum(record.input_tokens for record in done),
        "total_output_tokens": sum(record.output_tokens for record in done),
        "total_images": sum(record.images for record in done),
        "total_items": sum(record.items for record in done),
    }

    def per_second(count: int) -> float:
        return count / duration if duration else 0.0

    return {
        "duration": duration,
        "completed": len(done),
        "failed": len(records) - len(done),
        "error_counts": dict(Counter(record.error for record in records if record.error).most_common()),
        **counts,
        "request_throughput": per_second(len(done)),
        "output_throughput": per_second(counts["total_output_tokens"]),
        "total_token_throughput": per_second(counts["total_input_tokens"] + counts["total_output_tokens"]),
        "image_throughput": per_second(counts["total_images"]),
        "item_throughput": per_second(counts["total_items"]),
    }


def statistics(latencies: Mapping[str, Series]) -> dict[str, float]:
    """Flat keys such as `p99_ttft_ms`, in vllm's spelling."""
    figures: dict[str, float] = {}
    for name, values in latencies.items():
        figures[f"mean_{name}_ms"] = float(values.mean())
        figures[f"median_{name}_ms"] = float(np.median(values))
        figures[f"std_{name}_ms"] = float(values.std())
        figures[f"max_{name}_ms"] = float(values.max())
        for percentile, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True):
            figures[f"p{percentile}_{name}_ms"] = float(value)
    return figures


def is_good(record: Record, bounds: Bounds) -> bool:
    """Whether the request was answered within every bound. A stream of one token has no time per token to miss."""
    if record.error is not None:
        return False
    measured = ((BOUNDED[name](record), bound) for name, bound in bounds.items())
    return all(time is None or time * 1e3 <= bound for time, bound in measured)


def goodput(records: Sequence[Record], bounds: Bounds) -> dict[str, Any]:
    """Good requests per second, and their share of all requests; empty without bounds."""
    if not bounds:
        return {}
    good = sum(is_good(record, bounds) for record in records)
    duration = totals(records)["duration"]
    return {
        "goodput_bounds_ms": dict(bounds),
        "request_goodput": good / duration if duration else 0.0,
        "good_share": good / len(records) if records else 0.0,
    }


def parse_bounds(text: str) -> dict[str, float]:
    """Read `ttft:200,e2e:1000` (milliseconds).

    Raises:
        ValueError: one sentence for whoever typed it.

    """
    bounds: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition(":")
        name = "e2el" if name == "e2e" else name
        if name not in BOUNDED:
            raise ValueError(
                f"{part.strip()!r} bounds nothing known: use ttft, tpot or e2e, as in ttft:200,e2e:1000"
            )
        try:
            bounds[name] = float(number)
        except ValueError:
            raise ValueError(f"{part.strip()!r} has no number of milliseconds after the colon") from None
        if not 0 < bounds[name] < float("inf"):
            raise ValueError(f"{part.strip()!r} must be a positive number of milliseconds")
    return bounds
