"""Evaluates models that embed or classify texts, on CSV files: what labels say, or how alike pairs are.

text,label     embeddings: whether a text's nearest ones have its label; classifiers: whether it gets it
a,b,score      embeddings: whether pairs that are more alike are nearer (semantic textual similarity)
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from deployments.evaluation.called import call_speed, called
from deployments.evaluation.data import chosen, described, digest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.estimates import Sampling, Statistic, estimate, mean
from deployments.evaluation.record import Data, Figure
from deployments.evaluation.shown import Found, Progress
from deployments.messages import Classify, Embed, Output
from deployments.studio import Studio
from model_store.columns import Columns, read_columns
from model_store.labelled import WrongArrays
from model_store.manifest import Manifest
from model_store.ranking import Weights

NEAREST: Final = 5
_BATCH: Final = 32
_BLOCK: Final = 1024  # texts that are held against all others at once


@dataclass(frozen=True)
class Marked:
    """Texts with labels, or pairs of texts with scores: then `others` are what `texts` are compared with."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


def read_marked(path: Path, limit: int | None) -> tuple[Marked, Data]:
    """Read a file; of more than `limit` rows a fixed choice. Raises EvaluationError."""
    try:
        columns = read_columns(path)
        found = _marked(columns, chosen(columns.rows, limit))
    except WrongArrays as error:
        raise EvaluationError(f"{error}; needed are columns text and label, or a, b and score") from error
    groups = found.labels or ("",) * len(found.texts)
    return found, described(path, digest([path.read_bytes()], limit), groups)


def _marked(columns: Columns, places: Sequence[int]) -> Marked:
    def taken(name: str) -> tuple[str, ...]:
        return tuple(columns[name][place] for place in places)

    if "a" not in columns.texts:
        return Marked(taken("text"), taken("label"))
    scores = columns.numbers("score")
    if None in scores:
        raise WrongArrays(f"{columns.file}, line {scores.index(None) + 2}: there is no score")
    return Marked(taken("a"), (), taken("b"), tuple(scores[place] or 0.0 for place in places))


async def evaluate_encoder(
    studio: Studio, manifest: Manifest, marked: Marked, key: str, progress: Progress
) -> Found:
    """Everything that can be said of a model that reads texts whole."""
    name = manifest.name
    if "embed" in manifest.capabilities:
        found = await _embedded(studio, name, marked, key, progress)
        requests = {count: Embed(name, _several(marked.texts, count)) for count in (1, _BATCH)}
        found.figures |= await call_speed(studio, requests, "texts", progress)
        return found
    if not marked.labels:
        raise EvaluationError(f"{name} classifies texts: give columns text and label")
    found = await _classified(studio, manifest, marked, key, progress)
    asked = {count: Classify(name, _several(marked.texts, count)) for count in (1, _BATCH)}
    found.figures |= await call_speed(studio, asked, "texts", progress)
    return found


def _several(texts: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(texts[place % len(texts)] for place in range(count))


async def _embedded(studio: Studio, model: str, marked: Marked, key: str, progress: Progress) -> Found:
    async def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
        outputs = await called(studio, texts, lambda some: Embed(model, some), "Embedding", progress)
        return np.stack([_vector(each) for each in outputs])

    first = await vectors(marked.texts)
    if marked.others:
        cosines = (first * await vectors(marked.others)).sum(1)
        figure = estimate(
            spearman(cosines, np.array(marked.scores)),
            Sampling.of(key, len(cosines)),
            better=True,
            about="rank correlation of cosines with the pairs' scores (Spearman)",
        )
        return Found({"similarity": figure})
    if len(set(marked.labels)) == 1 or len(marked.labels) <= NEAREST:
        raise EvaluationError(f"nearest neighbours need more than {NEAREST} texts, and two labels among them")
    right = nearest(first, marked.labels)
    return Found({"knn_accuracy": _accuracy(right, marked, key, f"by its {NEAREST} nearest other texts")})


def _vector(output: Output) -> NDArray[np.float32]:
    return np.frombuffer(output.array.data if output.array else b"", "<f4")


def spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> Statistic:
    """Correlation of ranks, equal ones averaged. Draws weigh the pairs, and leave the ranks as they are among all."""
    ranks = np.stack([stats.rankdata(each) for each in (first, second)])

    def statistic(weights: Weights) -> float:
        a, b = ranks - (ranks @ weights / weights.sum())[:, None]
        spread = float(np.sqrt((weights @ a**2) * (weights @ b**2)))
        return float(weights @ (a * b)) / spread if spread else 0.0

    return statistic


def nearest(vectors: NDArray[np.float32], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each vector's label is the most frequent one of its nearest others; of equally frequent ones the nearest's."""
    names, own = np.unique(labels, return_inverse=True)
    right = np.zeros(len(own), bool)
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = vectors[block] @ vectors.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        near = own[np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]]
        votes = np.zeros((len(near), len(names)))
        # A little less for those further away decides between equals.
        for place, each in enumerate(near.T):
            votes[np.arange(len(near)), each] += 1 - 1e-3 * place
        right[block] = votes.argmax(1) == own[block]
    return right


async def _classified(
    studio: Studio, manifest: Manifest, marked: Marked, key: str, progress: Progress
) -> Found:
    known = manifest.encoder.classes if manifest.encoder else ()
    if foreign := sorted(set(marked.labels) - set(known)):
        raise EvaluationError(f"the model has no class {foreign[0]!r}, only {', '.join(known)}")
    outputs = await called(
        studio, marked.texts, lambda some: Classify(manifest.name, some), "Classifying", progress
    )
    classes = [each.classes[0][0] if each.classes else "" for each in outputs]
    right = np.array([one == other for one, other in zip(classes, marked.labels, strict=True)])
    return Found({"accuracy": _accuracy(right, marked, key, "as the most probable class")})


def _accuracy(right: NDArray[np.bool_], marked: Marked, key: str, how: str) -> Figure:
    usual = Counter(marked.labels).most_common(1)[0][1] / len(marked.labels)
    return estimate(
        mean(right),
        Sampling.of(key, len(right)),
        better=True,
        about=f"share of texts whose label is found, {how}; the most frequent label alone: {usual:.3g}",
    )
