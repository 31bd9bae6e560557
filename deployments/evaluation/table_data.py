"""Reads table rows for a model with named features: CSV files, and `.npz` files of numbers in the features' own units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from deployments.evaluation.data import GOOD, chosen, described, digest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Data
from model_store import labelled
from model_store.columns import LABELS, known, read_columns
from model_store.labelled import Truths, WrongArrays
from model_store.tabling import Number, Table

Row: TypeAlias = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Rows:
    """Rows by feature; None is missing. `ignored` are columns that are no features of the model."""

    values: tuple[Row, ...]
    labels: Truths | None
    ignored: tuple[str, ...] = ()


def read_rows(path: Path, table: Table, label: str | None, limit: int | None) -> tuple[Rows, Data]:
    """Rows for a model of this table; of more than `limit` of them a fixed choice. Raises EvaluationError."""
    if path.suffix not in {".csv", ".npz"} or not path.is_file():
        raise EvaluationError(f"{path} is neither a .csv nor an .npz file, which table rows are read from")
    try:
        rows = _csv(path, table, label) if path.suffix == ".csv" else _arrays(path, table)
    except WrongArrays as error:
        raise EvaluationError(str(error)) from error
    places = chosen(len(rows.values), limit)
    labels = None if rows.labels is None else rows.labels[places]
    kept = Rows(tuple(rows.values[place] for place in places), labels, rows.ignored)
    groups = ("",) * len(places) if labels is None else ["anomaly" if each else GOOD for each in labels]
    return kept, described(path, digest([path.read_bytes()], limit), groups)


def _csv(path: Path, table: Table, label: str | None) -> Rows:
    columns, names = read_columns(path), [each.name for each in table.features]
    labels = columns.labels(label, names)
    texts: list[Sequence[float | str | None]] = [
        columns.numbers(each.name) if isinstance(each, Number) else columns.words(each.name)
        for each in table.features
    ]
    rows = tuple(dict(zip(names, row, strict=True)) for row in zip(*texts, strict=True))
    used = {*names, label or "", *LABELS}
    return Rows(rows, labels, tuple(each for each in columns.texts if each not in used))


def _arrays(path: Path, table: Table) -> Rows:
    data = labelled.read_rows(path)
    names = [each.name for each in table.features]
    if words := [each.name for each in table.features if not isinstance(each, Number)]:
        raise EvaluationError(f"{path.name} holds numbers, and {words[0]} is a word: give a .csv file")
    if data.values.shape[1:] != (len(names),):
        raise EvaluationError(
            f"X of {path.name} has shape {list(data.values.shape)}, where [rows, {len(names)}] belong"
        )
    if data.features and sorted(data.features) != sorted(names):
        raise EvaluationError(f"{path.name} names other features than the model has: {', '.join(names)}")
    order = [data.features.index(each) for each in names] if data.features else range(len(names))
    rows = known(data.values[:, list(order)])
    values = tuple(dict(zip(names, row, strict=True)) for row in rows)
    return Rows(values, data.anomalous if data.anomalous.any() else None)
