"""Whether the two graphs of an encoder-decoder give transformers' logits and greedy tokens, for sources of different lengths."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from model_store.errors import RunFailed
from model_store.export.errors import ParityError
from model_store.export.hf.encoder_decoder_job import Job, Reference, Report, cross_names
from model_store.export.hf.rows import Array, Opens, Rows
from model_store.export.parity import Figure

GRAPH: Final = "step"
LIMIT: Final = 1e-3
"""Largest absolute error of a logit ..."""

RELATIVE: Final = 1e-5
"""... or this share of the largest logit, where logits are large."""


class Answers(Rows):
    """Rows that look at a source: `source_length` [batch] and what `encode` left of it."""

    def __init__(
        self,
        session: Opens,
        job: Job,
        report: Report,
        *,
        cache: int,
        cross: Mapping[str, Array],
        lengths: Array,
    ) -> None:
        super().__init__(session, report.layers, vocabulary=job.vocabulary, batch=len(lengths), cache=cache)
        self._source = {**cross, "source_length": lengths.astype(np.int32)}

    def inputs(self, ids: Array, select: Array, counts: Array) -> dict[str, Array]:
        """The feeds of a step, source and all."""
        return {**super().inputs(ids, select, counts), **self._source}


def read_sources(session: Opens, job: Job, report: Report, sources: Sequence[Array]) -> dict[str, Array]:
    """What `encode` makes of sources in one right-padded run; the padding is no padding token, because it must not matter."""
    length = np.array([len(each) for each in sources], np.int32)
    ids = np.full((len(sources), length.max()), job.vocabulary - 1, np.int64)
    for row, source in zip(ids, sources, strict=True):
        row[: len(source)] = source
    shapes = [(len(sources), heads, job.source, width) for heads, width in report.layers for _ in range(2)]
    # Filled, so that a place that is not written shows.
    names = cross_names(len(report.layers))
    cross = {name: np.full(shape, np.nan, np.float32) for name, shape in zip(names, shapes, strict=True)}
    session.bind({"input_ids": ids, "length": length}, cross).run()
    return cross


def prove(
    encode: Opens,
    step: Opens,
    job: Job,
    report: Report,
    references: Sequence[Reference],
    figure: Callable[[Figure], None],
) -> None:
    """Compare and tell each figure. Raises ParityError for the first over its limit, or where a graph cannot run."""
    try:
        cross = read_sources(encode, job, report, [each.source for each in references])
        found = follow(step, job, report, references, cross)
    except RunFailed as error:
        raise ParityError(f"the graphs fail where transformers does not: {error}", graph=GRAPH) from error
    kept = np.setdiff1d(np.arange(job.vocabulary), job.banned)
    figure(_compare(found[..., kept], np.stack([each.logits for each in references])[..., kept]))
    figure(_greedy(found, references, len(job.start)))


def follow(
    step: Opens, job: Job, report: Report, references: Sequence[Reference], cross: Mapping[str, Array]
) -> Array:
    """Logits [rows, steps, vocabulary] after each token of transformers' answers, all rows a token at a time."""
    tokens = np.stack([each.tokens for each in references])
    lengths = np.array([len(each.source) for each in references])
    rows = Answers(step, job, report, cache=tokens.shape[1], cross=cross, lengths=lengths)
    given = len(job.start)
    select = np.full((len(tokens), 1), given - 1)
    found = [rows.step(tokens[:, :given], select, np.full(len(tokens), given))[:, 0]]
    found.extend(rows.decode(tokens[:, place]) for place in range(given, tokens.shape[1] - 1))
    return np.stack(found, axis=1)


def _compare(found: Array, expected: Array) -> Figure:
    limit = max(LIMIT, RELATIVE * float(np.abs(expected).max()))
    apart = np.abs(found - expected)
    apart = np.where(np.isnan(apart), np.inf, apart)
    row, place, token = (int(each) for each in np.unravel_index(int(apart.argmax()), apart.shape))
    worst = float(apart[row, place, token])
    if worst > limit:
        raise ParityError(
            f"logits, ragged sources: row {row}, step {place}: the graphs give {found[row, place, token]:.6g} where "
            f"transformers gives {expected[row, place, token]:.6g} ({limit:.0e} apart is allowed)",
            graph=GRAPH,
            output="logits",
            index=(row, place, token),
            expected=float(expected[row, place, token]),
            found=float(found[row, place, token]),
            error=worst,
        )
    return Figure(GRAPH, "logits, ragged sources", len(found), worst, limit)


def _greedy(found: Array, references: Sequence[Reference], given: int) -> Figure:
    """Every step's most probable token. Two whose logits differ by less than rounding are a tie: either is right."""
    for row, reference in enumerate(references):
        for place, right in enumerate(reference.tokens[given:].tolist()):
            chosen = int(found[row, place].argmax())
            margin = abs(float(reference.logits[place, right] - reference.logits[place, chosen]))
            if chosen != right and margin > LIMIT:
                raise ParityError(
                    f"greedy decoding: row {row} continues with token {chosen} at step {place} where transformers takes {right}",
                    graph=GRAPH,
                    output="token",
                    index=(row, place),
                    expected=right,
                    found=chosen,
                )
    return Figure(GRAPH, f"greedy tokens, {len(found)} sources", found.shape[0] * found.shape[1], 0.0, 0.0)
