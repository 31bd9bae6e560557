"""Whether a decoder graph gives transformers' logits and greedy tokens: a ragged batch, its decoding, a prompt in chunks."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from model_store.errors import RunFailed
from model_store.export.errors import ParityError
from model_store.export.hf.job import Reference, Report
from model_store.export.hf.rows import Array, Opens, Rows
from model_store.export.parity import Figure

GRAPH: Final = "step"
LIMIT: Final = 1e-3
"""Largest absolute error of a logit."""

RELATIVE: Final = 1e-5
"""... or this share of the largest logit, where logits are large."""


def prove(
    session: Opens,
    report: Report,
    references: Sequence[Reference],
    figure: Callable[[Figure], None],
    adapters: Sequence[int] | None = None,
) -> None:
    """Compare and tell each figure. `adapters`: which one each reference is of, where the graph has some (0: none).

    Raises ParityError for the first that is over its limit, or where the graph cannot run.
    """
    wanted = None if adapters is None else np.array(adapters)
    try:
        ragged = _ragged(session, report, references, wanted)
        chunked = _chunked(session, report, references[-1], None if wanted is None else wanted[-1:])
    except RunFailed as error:
        raise ParityError(f"the graph fails where transformers does not: {error}", graph=GRAPH) from error
    expected = [each.logits[: len(each.tokens)] for each in references]
    prompt = [logits[: each.length] for logits, each in zip(ragged, references, strict=True)]
    figure(_compare("logits, ragged prompts", prompt, expected))
    figure(_compare("logits, ragged steps", ragged, expected))
    figure(_compare("logits, prompt in chunks", [chunked], expected[-1:]))
    figure(compare_greedy(ragged, references))


def _ragged(
    session: Opens, report: Report, references: Sequence[Reference], adapters: Array | None
) -> list[Array]:
    """Logits [tokens, vocabulary] of every row: all prompts in one padded run, then all rows a token at a time."""
    most = max(len(each.tokens) for each in references)
    batch = len(references)
    rows = Rows(
        session, report.layers, vocabulary=report.vocabulary, batch=batch, cache=most, adapters=adapters
    )
    found = [[logits] for logits in rows.prefill([each.tokens[: each.length] for each in references])]
    for place in range(min(len(each.tokens) - each.length for each in references)):
        logits = rows.decode(np.array([each.tokens[each.length + place] for each in references]))
        for row in range(batch):
            found[row].append(logits[row : row + 1])
    return [np.concatenate(parts) for parts in found]


def _chunked(session: Opens, report: Report, reference: Reference, adapter: Array | None) -> Array:
    """Logits of one row alone whose tokens come in two pieces and a last one."""
    tokens, length = reference.tokens, reference.length
    rows = Rows(
        session, report.layers, vocabulary=report.vocabulary, batch=1, cache=len(tokens) + 3, adapters=adapter
    )
    pieces = (tokens[: length // 3], tokens[length // 3 : -1], tokens[-1:])
    return np.concatenate(
        [rows.step(each[None], np.arange(len(each))[None], np.array([len(each)]))[0] for each in pieces]
    )


def _compare(what: str, found: Sequence[Array], expected: Sequence[Array]) -> Figure:
    limit = max(LIMIT, RELATIVE * max(float(np.abs(each).max()) for each in expected))
    worst = 0.0
    for row, (values, truth) in enumerate(zip(found, expected, strict=True)):
        apart = np.abs(values - truth[: len(values)])
        apart = np.where(np.isnan(apart), np.inf, apart)
        place = np.unravel_index(int(apart.argmax()), apart.shape)
        worst = max(worst, float(apart[place]))
        if apart[place] > limit:
            raise ParityError(
                f"{what}: row {row}, token {place[0]}: the graph's logit of {place[1]} is {values[place]:.6g} where "
                f"transformers gives {truth[place]:.6g} ({limit:.0e} apart is allowed)",
                graph=GRAPH,
                output="logits",
                index=(row, *(int(each) for each in place)),
                expected=float(truth[place]),
                found=float(values[place]),
                error=float(apart[place]),
            )
    return Figure(GRAPH, what, len(found), worst, limit)


def compare_greedy(found: Sequence[Array], references: Sequence[Reference]) -> Figure:
    """Every step's most probable token. Two whose logits differ by less than rounding are a tie: either is right."""
    count = 0
    for row, (logits, reference) in enumerate(zip(found, references, strict=True)):
        steps = range(reference.length - 1, len(reference.tokens) - 1)
        for place in steps:
            chosen, right = int(logits[place].argmax()), int(reference.tokens[place + 1])
            margin = float(reference.logits[place, right] - reference.logits[place, chosen])
            if chosen != right and margin > LIMIT:
                raise ParityError(
                    f"greedy decoding: row {row} continues with token {chosen} at {place + 1} where transformers takes {right}",
                    graph=GRAPH,
                    output="token",
                    index=(row, place + 1),
                    expected=right,
                    found=chosen,
                )
            count += 1
    return Figure(GRAPH, f"greedy tokens, {len(found)} rows", count, 0.0, 0.0)
