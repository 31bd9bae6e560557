"""How far off a model of table rows redraws them, and fills in what is hidden of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.called import called
from deployments.evaluation.estimates import Sampling, Statistic, estimate
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Progress
from deployments.evaluation.table_data import Row
from deployments.messages import Reconstruct, RowItem
from deployments.studio import Studio
from model_store.tabling import Number, Table

HIDDEN: Final = (0.1, 0.3, 0.5)
"""Shares of the values that are hidden, to be filled in."""


@dataclass(frozen=True)
class Redrawn:
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
        return self._figures("reconstruction", errors, f"{self.key}:redrawn", "of whole rows redrawn")

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
                "imputation",
                errors,
                f"{self.key}:{seed}:{share}",
                f"of values filled in, {share:.0%} of all hidden",
                f".{100 * share:.0f}",
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

    @cached_property
    def _plain(self) -> Row:
        """The mean of each number, and the most frequent of each feature's words."""
        return {each.name: _usual([row[each.name] for row in self.rows]) for each in self.table.features}

    @cached_property
    def _spreads(self) -> dict[str, float]:
        """The deviation of each number."""
        numbers = [each.name for each in self.table.features if isinstance(each, Number)]
        known: dict[str, list[Any]] = {
            name: [row[name] for row in self.rows if row[name] is not None] for name in numbers
        }
        return {name: float(np.std(values)) or 1.0 for name, values in known.items()}

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
                errors[places, column] = [((a - b) / self._spreads[name]) ** 2 for a, b in pairs]
            else:
                errors[places, column] = [a != b for a, b in pairs]
        return errors

    def _figures(
        self,
        kind: str,
        errors: NDArray[np.float64],
        key: str,
        words: str,
        share: str = "",
        plain: NDArray[np.float64] | None = None,
    ) -> dict[str, Figure]:
        numbers = np.array([isinstance(each, Number) for each in self.table.features])
        figures = {}
        for ending, columns, about, rooted in (
            ("error", numbers, "root mean square, in deviations of a feature,", True),
            ("wrong", ~numbers, "share of words that are wrong,", False),
        ):
            if np.isnan(errors[:, columns]).all():
                continue
            beside = ""
            if plain is not None:
                usual = "the mean" if rooted else "the most frequent one"
                value = _mean(plain[:, columns], rooted=rooted)(np.ones(len(plain)))
                beside = f"; {usual} has {value:.4g}"
            figures[f"{kind}_{ending}{share}"] = estimate(
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
