"""What is measured of text generation: steps, and the tokens of each row."""

from collections import Counter
from collections.abc import Sequence as Seq

from deployments.messages import TextDelta
from deployments.metrics import Metrics
from deployments.rows import Row
from deployments.text.sequence import Sequence

TextRow = Row[Sequence, TextDelta]


class Meters:
    """The metrics of one model. Times are of the program's clock, in seconds."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.prompt_tokens = metrics.prompt_tokens.labels(name)
        self.cached_tokens = metrics.cached_prompt_tokens.labels(name)
        self._step_seconds = {k: metrics.step_seconds.labels(name, k) for k in ("prefill", "decode")}
        self._batch_rows = {k: metrics.batch_rows.labels(name, k) for k in ("prefill", "decode")}
        self._first_token = metrics.first_token_seconds.labels(name)
        self._inter_token = metrics.inter_token_seconds.labels(name)
        self._per_token = metrics.token_seconds.labels(name)
        self._completion_tokens = metrics.completion_tokens.labels(name)

    def stepped(self, kind: str, seconds: float, rows: int) -> None:
        """A run of the graph over so many rows took so long; `kind` is prefill or decode."""
        self._step_seconds[kind].observe(seconds)
        self._batch_rows[kind].observe(rows)

    def tokens(self, rows: Seq[TextRow], now: float) -> None:
        """Each of these rows has its next token."""
        self._completion_tokens.inc(len(rows))
        for last, count in Counter(row.work.last_seconds for row in rows if row.work.generated).items():
            self._inter_token.tally(now - last, count)
        for row in rows:
            if not row.work.generated:
                row.work.first_seconds = now
                self._first_token.observe(now - row.submitted)
            row.work.last_seconds = now

    def ended(self, work: Sequence, now: float) -> None:
        """A row has its last token."""
        if len(work.generated) > 1:
            self._per_token.observe((now - work.first_seconds) / (len(work.generated) - 1))
