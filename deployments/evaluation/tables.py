"""Evaluates models of table rows as they are served: scores, what explains them, and values that are filled in."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.called import call_speed, called
from deployments.evaluation.detection import has_both, judged
from deployments.evaluation.imputation import Redrawn
from deployments.evaluation.shown import Found, Progress, Sheet
from deployments.evaluation.table_data import Rows
from deployments.messages import Item, Reconstruct, RowItem, Score
from deployments.studio import Studio
from model_store.manifest import READERS, Manifest

_FILLED: Final = 2_000  # rows at most
_BATCH: Final = 32
_EXPLAINING: Final = ("contribution", "reconstruction")


async def evaluate_rows(
    studio: Studio, manifest: Manifest, rows: Rows, seed: int, key: str, progress: Progress
) -> Found:
    """Everything that can be said of a model of table rows."""
    found, name = Found(), manifest.name
    items = [RowItem(each) for each in rows.values]
    if manifest.scoring and "score" in manifest.capabilities:
        found.add(await _scored(studio, manifest, items, rows, key, progress))
    anomalous = rows.labels if has_both(rows.labels) else np.zeros(len(items), bool)
    normal = [each for each, odd in zip(rows.values, anomalous, strict=True) if not odd]
    if manifest.table and "reconstruct" in manifest.capabilities:
        redrawn = Redrawn(studio, name, manifest.table, tuple(normal[:_FILLED]), key, progress)
        # Rows that lack something are filled in below, where the model can.
        found.figures |= await redrawn.error()
        if "impute" in manifest.capabilities:
            found.figures |= await redrawn.imputation(seed)
    ask: type[Score | Reconstruct] = Score if "score" in manifest.capabilities else Reconstruct
    several = tuple(items[place % len(items)] for place in range(_BATCH))
    requests = {count: ask(name, several[:count]) for count in (1, _BATCH)}
    found.figures |= await call_speed(studio, requests, "rows", progress)
    return found


async def _scored(
    studio: Studio, manifest: Manifest, items: Sequence[Item], rows: Rows, key: str, progress: Progress
) -> Found:
    if manifest.scoring is None:
        return Found()
    default, named = manifest.scoring.default, {}
    shares: list[Mapping[str, float]] = []
    for score in sorted(manifest.scoring.calibrations, key=lambda each: each != default):
        explained = score == default and _explains(manifest, score)
        outputs = await called(
            studio,
            items,
            lambda some, score=score, told=explained: Score(  # type: ignore[misc]
                manifest.name, some, score=score, contributions=told
            ),
            f"Scoring by {score}",
            progress,
        )
        named[score] = np.array([each.score for each in outputs], np.float64)
        shares += [each.contributions or {} for each in outputs] if explained else []
    progress("Judging scores", 0, 0)
    found = judged(named, rows.labels, manifest.scoring, key)
    if shares:
        found.sheets.append(_contributions(shares, rows.labels, default))
    return found


def _explains(manifest: Manifest, score: str) -> bool:
    """Whether a graph tells features' contributions beside the score."""
    graphs = [manifest.graphs[each] for each in READERS if each in manifest.graphs]
    computed = [{tensor.role for tensor in graph.outputs} for graph in graphs]
    role = next((each for each in _EXPLAINING if any(each in roles for roles in computed)), None)
    return role is not None and any({f"score.{score}", role} <= roles for roles in computed)


def _contributions(
    shares: Sequence[Mapping[str, float]], labels: NDArray[np.bool_] | None, score: str
) -> Sheet:
    """Mean shares of the features, those first that have most of the anomalies' scores."""
    names = list(shares[0])
    values = np.array([[each[name] for name in names] for each in shares])
    groups = {"all rows": values.mean(0)}
    if has_both(labels):
        groups = {"anomalies": values[labels].mean(0), "normal rows": values[~labels].mean(0)}
    order = np.argsort(-next(iter(groups.values())), kind="stable")
    lines = tuple((names[place], *(f"{each[place]:.1%}" for each in groups.values())) for place in order)
    return Sheet(
        "What scores are of", f"Each feature's mean share of the score {score}.", ("feature", *groups), lines
    )
