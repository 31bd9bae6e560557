"""The one table of metrics: names, units, labels, buckets. One `Metrics` per process, handed to whoever measures."""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# Small ONNX models step in under a millisecond, large ones stream for minutes: bounds from 1 ms to ten minutes.
SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0,
)  # fmt: skip
BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 100, 1000)


# A series per counter that says when the process started, which Prometheus knows already.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Tally(Histogram):
    """A histogram that takes many amounts at once: those of a batch's rows."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe each."""
        self._sum.inc(sum(amounts))
        for place, times in Counts(bisect_left(self._upper_bounds, each) for each in amounts).items():
            self._buckets[place].inc(times)

    def tally(self, amount: float, times: int) -> None:
        """Observe an amount so many times."""
        self._sum.inc(amount * times)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(times)


class Metrics:
    """Every figure Atelier exports. Histograms of time are in seconds; `_sum` and `_count` are exact."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"atelier_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"atelier_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Tally:
            return Tally(f"atelier_{name}", text, labels, buckets=bounds, registry=registry)

        # At the door.
        self.requests = counter("requests", "Requests answered", "model", "route", "status")
        self.request_seconds = histogram(
            "request_seconds", "From the request's first byte to the answer's last", SECONDS, "model", "route"
        )
        self.rejected = counter("rejected", "Requests refused before any work", "model", "reason")
        self.cancelled = counter("cancelled", "Requests whose client left before the end", "model")
        # In the engine.
        self.queue_seconds = histogram(
            "queue_seconds", "From submission to a place in the batch", SECONDS, "model"
        )
        self.first_token_seconds = histogram(
            "time_to_first_token_seconds", "From submission to the first token", SECONDS, "model"
        )
        self.inter_token_seconds = histogram(
            "inter_token_seconds", "Between one token of a row and the next", SECONDS, "model"
        )
        self.token_seconds = histogram(
            "time_per_output_token_seconds",
            "Mean time between a row's tokens after its first",
            SECONDS,
            "model",
        )
        self.step_seconds = histogram(
            "step_seconds", "One run of the model's graph", SECONDS, "model", "graph"
        )
        self.batch_rows = histogram(
            "batch_rows", "Rows that shared one run of the graph", BATCH, "model", "graph"
        )
        self.encode_seconds = histogram("encode_seconds", "Encoding one request's pictures", SECONDS, "model")
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed", "model")
        self.cached_prompt_tokens = counter(
            "cached_prompt_tokens", "Prompt tokens whose state was there already", "model"
        )
        self.completion_tokens = counter("completion_tokens", "Tokens generated", "model")
        self.images = counter("images", "Pictures generated", "model")
        self.items = counter("items", "Items reconstructed, scored, encoded or decoded", "model")
        self.scores = histogram("anomaly_score", "Anomaly scores given", SCORE, "model", "score")
        self.drift_psi = gauge(
            "drift_psi",
            "Population stability index of the last 1000 scores, or latents' distances, beside their calibration",
            "model",
            "of",
        )
        self.drift_ks = gauge(
            "drift_ks", "Kolmogorov-Smirnov statistic of the same, from 0 to 1", "model", "of"
        )
        self.live = gauge("live_rows", "Rows in the running batch", "model")
        self.waiting = gauge("waiting_rows", "Rows in the waiting line", "model")
        self.waiting_tokens = gauge(
            "waiting_tokens", "Tokens that the rows in the waiting line may take", "model"
        )
        self.slots = gauge("slots", "Places for rows with device state", "model")
        self.slots_used = gauge("slots_used", "Places taken", "model")
        self.model_info = gauge(
            "model_info", "1 for each model loaded", "model", "version", "task", "family", "device"
        )
        self.load_seconds = gauge("model_load_seconds", "Time to verify, load and replay the model", "model")
