"""Rows of named features, made ready for a fit: in which units each is measured, and what is known of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from model_store import columns, labelled
from model_store.export.errors import DraftError
from model_store.fitted.fit import Fitted, fit, places
from model_store.fitted.recipe import Recipe
from model_store.fitted.spread import Doubles
from model_store.labelled import Floats, Labelled, Rows, WrongArrays
from model_store.tabling import Number, Table

_HIDDEN: Final = 0.3  # of held-out values, to see how far off they are filled in


def read_named(path: Path, names: Sequence[str], label: str | None) -> Rows | None:
    """Rows of a file with names, its own or these; None where it has none. Raises DraftError."""
    if label and path.suffix != ".csv":
        raise DraftError("--label names a column of a .csv file; an .npz file has labels in y")
    try:
        if path.suffix == ".csv":
            return columns.read_rows(path, names, label)
        rows = labelled.read_rows(path) if names else _own(path)
    except WrongArrays as error:
        raise DraftError(str(error)) from error
    if rows is None or not names:
        return rows
    if len(names) != rows.values.shape[1]:
        raise DraftError(f"{len(names)} features are named; {path.name} has {rows.values.shape[1]} columns")
    return replace(rows, features=tuple(names))


def _own(path: Path) -> Rows | None:
    return labelled.read_rows(path) if labelled.is_named(path) else None


def fit_named(rows: Rows, recipe: Recipe, share: float, file: str) -> tuple[Fitted, Labelled]:
    """Fit to normal rows, and those held out, in the table's columns. Missing values count as their feature's mean. Raises DraftError."""
    kept, rest = places(rows.anomalous, share, recipe.seed)
    if len(set(rows.features)) < len(rows.features):
        raise DraftError("a feature is named twice")
    table = described(rows.values[kept], rows.features, standardize=recipe.standardize is not False)
    fitted = fit(_columns(rows.values[kept], table), recipe, table)
    held = Labelled(_columns(rows.values[rest], table), rows.anomalous[rest], file)
    if recipe.kind == "pca" and len(held.normal):
        fitted = replace(fitted, table=_with_errors(fitted, table, held.normal))
    return fitted, held


def described(normal: Doubles, names: Sequence[str], *, standardize: bool) -> Table:
    """Mean, deviation and range of every feature in normal rows [count, features]. Raises DraftError where nothing of one is known.

    What lies outside of the range is taken: it is what anomalies are like.
    """
    features = []
    for name, column in zip(names, normal.T, strict=True):
        known = column[~np.isnan(column)]
        if not known.size:
            raise DraftError(f"no normal row that is fitted to has a value of {name}")
        mean, deviation = float(known.mean()), float(known.std())
        constant = deviation <= 1e-7 * max(float(np.abs(known).max()), np.finfo(np.float64).tiny)
        features.append(
            Number(
                kind="number",
                name=name,
                mean=mean,
                deviation=1.0 if constant or not standardize else deviation,
                minimum=float(known.min()),
                maximum=float(known.max()),
                outside="accept",
            )
        )
    return Table(features=tuple(features))


def _columns(values: Doubles, table: Table) -> Floats:
    numbers = [each for each in table.features if isinstance(each, Number)]
    mean, deviation = (np.array([getattr(each, of) for each in numbers]) for of in ("mean", "deviation"))
    with np.errstate(over="ignore"):
        columns_: Floats = ((values - mean) / deviation).astype(np.float32)
    return columns_


def _with_errors(fitted: Fitted, table: Table, normal: Floats) -> Table:
    """The table, with how far off a hidden share of held-out values is filled in."""
    hidden = np.random.default_rng(fitted.recipe.seed).random(normal.shape) < _HIDDEN
    redrawn = fitted.redrawn(np.where(hidden, np.float32(np.nan), normal))
    squares = np.where(hidden, (redrawn - normal).astype(np.float64) ** 2, np.nan)
    features = []
    for feature, own in zip(table.features, squares.T, strict=True):
        known = own[~np.isnan(own)]
        error = float(np.sqrt(known.mean())) if known.size else 0.0
        features.append(feature.model_copy(update={"error": error * getattr(feature, "deviation", 1.0)}))
    return Table(features=tuple(features))
