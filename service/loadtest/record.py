"""What is remembered of one request. Times are seconds from the start of the run, on one monotonic clock."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Record:
    """One request, answered or not. The definitions of the figures are those of `vllm bench serve`.

    `outputs` are the arrival times of the stream's events that carried output; empty where nothing was streamed.
    """

    due: float  # when the schedule wanted it sent; equal to `sent` in a closed loop
    sent: float
    ended: float  # the last output, or the moment it was known to have failed
    error: str | None = None
    outputs: tuple[float, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    items: int = 0

    @property
    def lag(self) -> float:
        """How late the load generator itself was."""
        return self.sent - self.due

    @property
    def latency(self) -> float:
        """From sending to the last output."""
        return self.ended - self.sent

    @property
    def latency_from_schedule(self) -> float:
        """From the time it was due to the last output: a late sender hides nothing."""
        return self.ended - self.due

    @property
    def first_token(self) -> float | None:
        """From sending to the first output of a stream (TTFT)."""
        return self.outputs[0] - self.sent if self.outputs else None

    @property
    def gaps(self) -> tuple[float, ...]:
        """Between consecutive outputs of a stream (ITL)."""
        return tuple(later - earlier for earlier, later in pairwise(self.outputs))

    @property
    def per_token(self) -> float | None:
        """Mean time per output token after the first (TPOT); None for a stream of one token."""
        if not self.outputs or self.output_tokens < 2:
            return None
        return (self.ended - self.outputs[0]) / (self.output_tokens - 1)
