"""Table rows between their features' names and a graph's columns. Knows no graph and no request."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from deployments.errors import BadRequest
from deployments.items import ReadItem
from deployments.messages import Imputed, RowItem
from model_store.session import Array
from model_store.tabling import Category, Feature, Number, Table

_LARGEST: Final = float(np.finfo(np.float32).max)
_SHOWN: Final = 8  # categories in a message


class Features:
    """A model's."""

    def __init__(self, table: Table, *, missing: bool) -> None:
        self._features = {each.name: each for each in table.features}
        self._missing = missing  # whether the model takes rows without some of them
        widths = [
            1 if isinstance(each, Number) else len(each.categories) + each.unknown for each in table.features
        ]
        self._starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
        self.names = tuple(self._features)

    # -- in ------------------------------------------------------------------------------------------------------------

    def read(self, item: RowItem, param: str) -> ReadItem:
        """`input` f32 [columns] and `known` f32 [features]. Raises BadRequest naming the feature."""
        place = f"{param}.features"
        for name in item.features:
            if name not in self._features:
                raise BadRequest(
                    "The model has no such feature.", code="unknown_parameter", param=f"{place}.{name}"
                )
        columns: list[float] = []
        known: list[float] = []
        for name, feature in self._features.items():
            value = item.features.get(name)
            known.append(value is not None)
            columns += self._columns(feature, value, f"{place}.{name}")
        if not any(known):
            raise BadRequest("Every feature of the row is missing.", param=place)
        return ReadItem({"input": np.array(columns, np.float32), "known": np.array(known, np.float32)})

    def _columns(self, feature: Feature, value: Any, param: str) -> list[float]:
        if value is None:
            if not self._missing:
                raise BadRequest(
                    "The model takes no missing values.", code="missing_required_parameter", param=param
                )
            return (
                [0.0] if isinstance(feature, Number) else [0.0] * (len(feature.categories) + feature.unknown)
            )
        return (
            [_number(feature, value, param)]
            if isinstance(feature, Number)
            else _one_hot(feature, value, param)
        )

    # -- out -----------------------------------------------------------------------------------------------------------

    def write(self, row: Array) -> dict[str, float | str]:
        """Values of a graph's f32 [columns]: of a category the most probable one."""
        return {name: _value(self._features[name], own) for name, own in self._each(row)}

    def imputed(self, row: Array, samples: Sequence[Array], item: RowItem) -> dict[str, Imputed]:
        """What the item's missing features are filled in with; `samples` are other rows like `row`."""
        drawn = [dict(self._each(sample)) for sample in samples]
        return {
            name: Imputed(
                _value(self._features[name], own),
                _spread(self._features[name], own, np.array([each[name] for each in drawn]))
                if drawn
                else None,
            )
            for name, own in self._each(row)
            if item.features.get(name) is None
        }

    def shares(self, errors: Array, known: Array) -> dict[str, float]:
        """Of errors [features] or [columns] that are known: each feature's share, together 1."""
        if errors.size != known.size:
            errors = np.add.reduceat(errors, self._starts)
        errors = np.maximum(errors, 0).astype(np.float64) * known
        total = errors.sum()
        shares = errors / total if total > 0 else known / known.sum()
        return dict(zip(self.names, shares.tolist(), strict=True))

    def hide(self, item: ReadItem, hidden: Array) -> ReadItem:
        """The row without the features in bool [features]."""
        widths = np.diff(np.append(self._starts, len(item.feeds["input"])))
        columns = np.where(np.repeat(hidden, widths), np.float32(0), item.feeds["input"])
        return ReadItem({"input": columns, "known": np.where(hidden, np.float32(0), item.feeds["known"])})

    def _each(self, row: Array) -> list[tuple[str, Array]]:
        return list(zip(self.names, np.split(row, self._starts[1:]), strict=True))


def _number(feature: Number, value: Any, param: str) -> float:
    # By exact type: `true` is no number.
    if type(value) not in (int, float):
        raise BadRequest("The feature is a number.", code="invalid_type", param=param)
    low, high = feature.minimum, feature.maximum
    if feature.outside == "refuse" and not (
        (low is None or value >= low) and (high is None or value <= high)
    ):
        bounds = " and ".join(
            f"at {word} {bound:g}" for word, bound in (("least", low), ("most", high)) if bound is not None
        )
        raise BadRequest(f"The feature is {bounds}.", param=param)
    if feature.outside == "clip":
        value = max(value, value if low is None else low)
        value = min(value, value if high is None else high)
    column = (float(value) - feature.mean) / feature.deviation
    if not math.isfinite(column) or abs(column) > _LARGEST:
        raise BadRequest("The number must be finite in float32.", param=param)
    return column


def _one_hot(feature: Category, value: Any, param: str) -> list[float]:
    if not isinstance(value, str):
        raise BadRequest("The feature is a word, one of its categories.", code="invalid_type", param=param)
    columns = [float(value == each) for each in feature.categories]
    if any(columns):
        return columns + [0.0] * feature.unknown
    if not feature.unknown:
        shown = ", ".join(feature.categories[:_SHOWN])
        more = ", ..." if len(feature.categories) > _SHOWN else ""
        raise BadRequest(f"The feature's categories are: {shown}{more}.", param=param)
    return [*columns, 1.0]


def _value(feature: Feature, own: Array) -> float | str:
    if isinstance(feature, Number):
        return float(own[0]) * feature.deviation + feature.mean
    return feature.categories[int(np.argmax(own[: len(feature.categories)]))]


def _spread(feature: Feature, own: Array, drawn: Array) -> float:
    """How far samples [samples, columns] are from what is filled in.

    Of a number with the model's own error beside it, as in multiple imputation: samples show what the model does not know of
    its answer, and not how much rows vary whose known values are alike.
    """
    if isinstance(feature, Number):
        between = float(np.mean((drawn[:, 0].astype(np.float64) - float(own[0])) ** 2))
        return math.sqrt(between * feature.deviation**2 + feature.error**2)
    size = len(feature.categories)
    weights = np.maximum(drawn[:, :size].astype(np.float64), 0)
    totals = weights.sum(axis=1)
    chosen = weights[:, int(np.argmax(own[:size]))]
    return 1 - float(np.mean(np.divide(chosen, totals, out=np.zeros_like(chosen), where=totals > 0)))


def described(table: Table) -> Mapping[str, Mapping[str, object]]:
    """What a model's card says of each feature."""
    return {
        each.name: each.model_dump(
            include={"kind", "unit", "minimum", "maximum", "outside", "categories", "unknown"}, mode="json"
        )
        for each in table.features
    }
