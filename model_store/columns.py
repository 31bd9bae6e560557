"""Reads CSV files with named columns. Knows no model."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_store.labelled import Rows, Truths, WrongArrays, check_finite

LABELS: Final = ("label", "anomaly")
"""Columns that say which rows are anomalies, where no other one is named."""

_TRUTHS: Final = {"0": False, "false": False, "normal": False, "1": True, "true": True, "anomaly": True}
_NOTHING: Final = frozenset({"", "nan", "null", "na", "none"})


@dataclass(frozen=True)
class Columns:
    """Texts of a file by column."""

    file: str
    texts: dict[str, list[str]]
    rows: int

    def labels(self, named: str | None, taken: Sequence[str]) -> Truths | None:
        """What the column says of each row; of its own accord one that is not `taken`. Raises WrongArrays."""
        usual = next((each for each in LABELS if each in self.texts and each not in taken), None)
        name = named or usual
        if name is None:
            return None
        try:
            return np.array([_TRUTHS[each.lower().removesuffix(".0")] for each in self[name]])
        except KeyError as error:
            raise WrongArrays(
                f"{self.file}: column {name} has {error.args[0]!r}, where a label is 0 (normal) or 1 (anomaly)"
            ) from None

    def numbers(self, name: str) -> list[float | None]:
        """A column of numbers. Raises WrongArrays naming the line."""
        return [self._number(each, name, line) for line, each in enumerate(self.words(name), 2)]

    def words(self, name: str) -> list[str | None]:
        """A column, None where a field is empty or says that nothing is known. Raises WrongArrays."""
        return [None if each.lower() in _NOTHING else each for each in self[name]]

    def _number(self, text: str | None, name: str, line: int) -> float | None:
        try:
            return None if text is None else float(text)
        except ValueError:
            raise WrongArrays(
                f"{self.file}, line {line}: {name} is {text!r}, where a number belongs"
            ) from None

    def __getitem__(self, name: str) -> list[str]:
        if name not in self.texts:
            raise WrongArrays(f"{self.file} has no column {name}, only {', '.join(self.texts)}")
        return self.texts[name]


def known(values: NDArray[np.float64]) -> list[list[float | None]]:
    """Rows of numbers [rows, columns], None for NaN: as a client sends them."""
    return [[None if math.isnan(each) else each for each in row] for row in values.tolist()]


def read_columns(path: Path) -> Columns:
    """Read a file. Raises WrongArrays."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise WrongArrays(f"{path.name} cannot be read: {error.strerror}") from error
    except (UnicodeError, csv.Error, ValueError) as error:
        raise WrongArrays(f"{path.name} cannot be read as a CSV file: {error}") from error
    names = [each.strip() for each in head]
    if len(set(names)) < len(names):
        raise WrongArrays(f"{path.name}: a column is named twice")
    for line, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise WrongArrays(f"{path.name}, line {line}: {len(row)} fields in {len(names)} columns")
    if not rows:
        raise WrongArrays(f"{path.name} has no rows below its names")
    told = ([each.strip() for each in column] for column in zip(*rows, strict=True))
    return Columns(path.name, dict(zip(names, told, strict=True)), len(rows))


def read_rows(path: Path, names: Sequence[str] = (), label: str | None = None) -> Rows:
    """Columns of numbers by name, all but the labels where none is named. Raises WrongArrays."""
    columns = read_columns(path)
    labels = columns.labels(label, names)
    features = tuple(names) or tuple(each for each in columns.texts if each not in {label, *LABELS})
    values = np.array([columns.numbers(each) for each in features], np.float64).T
    return Rows(
        check_finite(values, path.name), np.zeros(len(values), bool) if labels is None else labels, features
    )
