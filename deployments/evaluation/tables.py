"""Evaluates models of table rows as they are served: scores, what explains them, and values that are filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.called import call_speed, called
from deployments.evaluation.detection import has_both, judged
from deployments.evaluation.estimates import Sampling, Statistic, estimate
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Found, Progress, Sheet
from deployments.evaluation.table_data import Row, Rows
from deployments.messages import Item, Reconstruct, RowItem, Score
from deployments.studio import Studio
from model_store.manifest import READERS, Manifest
from model_store.tabling import Number, Table

HIDDEN: Final = (0.1, 0.3, 0.5)
"""Shares of the values that are hidden, to be filled in."""

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
    normal = [
        each
        for place, each in enumerate(rows.values)
        if not has_both(rows.labels) or rows.labels is None or not rows.labels[place]
    ]
    if manifest.table and "reconstruct" in manifest.capabilities:
        redrawn = _Redrawn(studio, name, manifest.table, tuple(normal[:_FILLED]), key, progress)
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
    if labels is not None and has_both(labels):
        groups = {"anomalies": values[labels].mean(0), "normal rows": values[~labels].mean(0)}
    order = np.argsort(-next(iter(groups.values())), kind="stable")
    lines = tuple((names[place], *(f"{each[place]:.1%}" for each in groups.values())) for place in order)
    return Sheet(
        "What scores are of", f"Each feature's mean share of the score {score}.", ("feature", *groups), lines
    )


@dataclass(frozen=True)
class _Redrawn:
    """Rows beside what the model makes of them. Numbers are measured in their own deviations in these rows."""

    studio: Studio
    model: str
    table: Table
    rows: tuple[Row, ...]
    key: str
    progress: Progress

    async def error(self) -> dict[str, Figure]:
        """Of all that is known, of whole rows."""
        whole = tuple(each for each in self.rows if None not in each.values())
        if not whole:
            return {}
        made = await self._ask(whole, "Reconstructing")
        errors = self._squares(whole, made, np.ones((len(whole), len(self.table.features)), bool))
        return self._figures("reconstruction_error", errors, f"{self.key}:redrawn", "of whole rows redrawn")

    async def imputation(self, seed: int) -> dict[str, Figure]:
        """Of values that are hidden."""
        random, figures = np.random.Generator(np.random.Philox(seed)), dict[str, Figure]()
        names = [each.name for each in self.table.features]
        known = np.array([[row[name] is not None for name in names] for row in self.rows])
        for share in HIDDEN:
            chance = np.where(known, random.random(known.shape), 1.0)
            hidden = chance < share
            hidden[np.arange(len(known)), np.where(known, chance, -1).argmax(1)] = False  # something is known
            touched = np.flatnonzero(hidden.any(1)).tolist()
            if not touched:
                continue
            rows, away = [self.rows[place] for place in touched], hidden[touched]
            given = [
                {name: None if gone else row[name] for name, gone in zip(names, lost, strict=True)}
                for row, lost in zip(rows, away, strict=True)
            ]
            made = await self._ask(given, f"Filling in {share:.0%}")
            errors = self._squares(rows, made, away)
            plain = self._squares(rows, [self._plain] * len(rows), away)
            figures |= self._figures(
                f"imputation_error.{100 * share:.0f}",
                errors,
                f"{self.key}:{share}",
                f"of values filled in, {share:.0%} of all hidden",
                plain,
            )
        return figures

    async def _ask(self, rows: Sequence[Row], doing: str) -> list[Row]:
        outputs = await called(
            self.studio,
            [RowItem(each) for each in rows],
            lambda some: Reconstruct(self.model, some, samples=0),
            doing,
            self.progress,
        )
        return [each.features or {} for each in outputs]

    @property
    def _plain(self) -> Row:
        """The mean of each number, and the most frequent of each feature's words."""
        return {each.name: _usual([row[each.name] for row in self.rows]) for each in self.table.features}

    def _squares(
        self, right: Sequence[Row], made: Sequence[Row], judged_: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Squared errors [rows, features] in deviations, of words whether they are wrong; NaN where nothing is judged."""
        errors = np.full(judged_.shape, np.nan)
        for column, feature in enumerate(self.table.features):
            name = feature.name
            places = np.flatnonzero(judged_[:, column]).tolist()
            pairs: list[tuple[Any, Any]] = [(right[place][name], made[place][name]) for place in places]
            if isinstance(feature, Number):
                values: list[Any] = [row[name] for row in self.rows if row[name] is not None]
                spread = float(np.std(values)) or 1.0
                errors[places, column] = [((a - b) / spread) ** 2 for a, b in pairs]
            else:
                errors[places, column] = [a != b for a, b in pairs]
        return errors

    def _figures(
        self,
        name: str,
        errors: NDArray[np.float64],
        key: str,
        words: str,
        plain: NDArray[np.float64] | None = None,
    ) -> dict[str, Figure]:
        numbers = np.array([isinstance(each, Number) for each in self.table.features])
        figures = {}
        for ending, columns, about, rooted in (
            ("", numbers, "root mean square, in deviations of a feature,", True),
            ("_wrong", ~numbers, "share of words that are wrong,", False),
        ):
            if np.isnan(errors[:, columns]).all():
                continue
            kind, _, share = name.partition(".")
            kind = kind.replace("_error", ending) if ending else kind
            beside = ""
            if plain is not None:
                usual = "the mean" if rooted else "the most frequent one"
                value = _mean(plain[:, columns], rooted=rooted)(np.ones(len(plain)))
                beside = f"; {usual} has {value:.4g}"
            figures[f"{kind}.{share}" if share else kind] = estimate(
                _mean(errors[:, columns], rooted=rooted),
                Sampling.of(key, len(errors)),
                better=False,
                about=f"{about} {words}{beside}",
            )
        return figures


def _usual(values: Sequence[Any]) -> Any:
    known = [each for each in values if each is not None]
    if not known:
        return None
    return max(set(known), key=known.count) if isinstance(known[0], str) else float(np.mean(known))


def _mean(errors: NDArray[np.float64], *, rooted: bool) -> Statistic:
    """Over all that is judged; rows of errors [rows, features] are drawn."""
    sums, counts = np.nansum(errors, 1), (~np.isnan(errors)).sum(1)

    def statistic(weights: NDArray[np.float64]) -> float:
        value = float(weights @ sums / max(float(weights @ counts), 1.0))
        return value**0.5 if rooted else value

    return statistic
