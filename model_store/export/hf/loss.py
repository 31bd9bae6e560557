"""What rounding costs: KL divergence and perplexity of a rounded graph beside the one it was made from, on the same texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_store.export.errors import DraftError
from model_store.export.hf.job import Report
from model_store.export.hf.rows import Array, Opens, Rows

WINDOW: Final = 128
"""Tokens that are looked at in one run."""

WINDOWS: Final = 8
FEWEST: Final = 32
"""A calibration text of fewer tokens says nothing."""

SEED: Final = 11


@dataclass(frozen=True)
class Graphs:
    """The graph that is right, the rounded one, and the dtypes of their states."""

    right: Opens
    rounded: Opens
    dtypes: tuple[str, str]


@dataclass(frozen=True)
class Loss:
    """Means over `tokens` next-token distributions, in nats: KL(right || rounded), and each graph's perplexity on the texts."""

    kl: float
    perplexity: float
    right_perplexity: float
    tokens: int


def own_texts(session: Opens, report: Report, start: Sequence[int], length: int = WINDOW) -> list[Array]:
    """Texts that the model writes itself at temperature 1, after the tokens that every prompt begins with."""
    generator = np.random.default_rng(SEED)
    rows = Rows(
        session, report.layers, vocabulary=report.vocabulary, batch=WINDOWS, cache=length + len(start) + 1
    )
    begun = np.tile(np.array(start, np.int64), (WINDOWS, 1)) if start else np.zeros((WINDOWS, 0), np.int64)
    tokens = np.concatenate([begun, generator.integers(0, report.vocabulary, (WINDOWS, 1))], 1)
    logits = np.stack([each[-1] for each in rows.prefill(list(tokens))])
    while tokens.shape[1] < length:
        drawn = (logits + generator.gumbel(size=logits.shape)).argmax(-1)
        tokens = np.concatenate([tokens, drawn[:, None]], 1)
        logits = rows.decode(drawn)
    return list(tokens)


def windows(tokens: Sequence[int], context: int) -> list[Array]:
    """A text's first windows. Raises DraftError for one that is too short to say anything."""
    if len(tokens) < FEWEST:
        raise DraftError(f"the calibration text has {len(tokens)} tokens; {FEWEST} are the fewest")
    size = min(WINDOW, context)
    pieces = [np.array(tokens[first : first + size], np.int64) for first in range(0, len(tokens), size)]
    return [each for each in pieces if len(each) >= FEWEST or len(pieces) == 1][:WINDOWS]


def measure(graphs: Graphs, report: Report, texts: Sequence[Array]) -> Loss:
    """Run both graphs over every text. A rounded graph that gives what is no number costs infinitely much."""
    return compare(
        (
            _logits(graphs.right, report, text, graphs.dtypes[0]),
            _logits(graphs.rounded, report, text, graphs.dtypes[1]),
            text[1:],
        )
        for text in texts
    )


def compare(cases: Iterable[tuple[Array, Array, Array]]) -> Loss:
    """Of each case the right logits [tokens, vocabulary], the rounded ones, and the tokens that follow the first of them."""
    divergences, losses, right_losses = list[Array](), list[Array](), list[Array]()
    for *logits, following in cases:
        right, rounded = map(_log_softmax, logits)
        divergences.append((np.exp(right) * (right - rounded)).sum(-1))
        for found, each in ((right_losses, right), (losses, rounded)):
            found.append(-np.take_along_axis(each[: len(following)], following[:, None], -1))
    kl = float(np.concatenate(divergences).mean())
    nats, right_nats = (float(np.concatenate(each).mean()) for each in (losses, right_losses))
    count = sum(len(each) for each in divergences)
    return Loss(
        kl if np.isfinite(kl) else float("inf"), float(np.exp(nats)), float(np.exp(right_nats)), count
    )


def _logits(session: Opens, report: Report, text: Array, dtype: str) -> Array:
    rows = Rows(session, report.layers, vocabulary=report.vocabulary, batch=1, cache=len(text), dtype=dtype)
    return rows.prefill([text])[0]


def _log_softmax(logits: Array) -> Array:
    moved = logits - logits.max(-1, keepdims=True)
    result: Array = moved - np.log(np.exp(moved).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return result
