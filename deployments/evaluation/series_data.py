"""Reads time series: CSV files, folders of them, the Numenta benchmark's layout, and `.npz` files of whole series.

series.csv             a column for each channel (any number for the only one), `timestamp`, and a label for each step
folder/*.csv           several
folder/data/*/*.csv    with labels/combined_windows.json: the Numenta anomaly benchmark
file.npz               X [series, steps] or [series, steps, channels], y [series]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.data import chosen, digest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Data
from model_store import labelled, nab
from model_store.columns import LABELS, Columns, known, read_columns
from model_store.labelled import Truths, WrongArrays
from model_store.tabling import Series

_TIME: Final = "timestamp"
_LABELS: Final = Path("labels") / "combined_windows.json"


@dataclass(frozen=True)
class Recorded:
    """A series: its values [steps][channels], None where one is missing, and which steps are anomalies, where that is known.

    `judged` is the same for the Numenta benchmark, where it is of it.
    """

    name: str
    values: list[list[float | None]]
    labels: Truths | None = None  # [steps]
    timestamps: list[Any] | None = None
    judged: nab.Series | None = None

    @property
    def windows(self) -> list[tuple[int, int]]:
        """First and last step of each run of anomalous ones."""
        if self.labels is None:
            return []
        ends = np.flatnonzero(np.diff(np.concatenate([[False], self.labels, [False]]).astype(np.int8)))
        return [(int(first), int(end) - 1) for first, end in ends.reshape(-1, 2)]


def read_series(
    path: Path, series: Series, label: str | None, limit: int | None
) -> tuple[list[Recorded], Data]:
    """Series for a model that cuts them so; of more than `limit` of them a fixed choice. Raises EvaluationError."""
    try:
        return _read(path, [each.name for each in series.channels], label, limit)
    except WrongArrays as error:
        raise EvaluationError(str(error)) from error


def _read(
    path: Path, channels: Sequence[str], label: str | None, limit: int | None
) -> tuple[list[Recorded], Data]:
    if path.is_dir() and (path / _LABELS).is_file():
        if len(channels) > 1:
            raise EvaluationError(f"{path} has series of one channel, and the model takes {len(channels)}")
        found, files = _benchmark(path)
    elif path.suffix == ".npz":
        found, files = _arrays(path, len(channels)), [path]
    else:
        files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
        if not files or any(each.suffix != ".csv" for each in files):
            raise EvaluationError(f"{path} is neither a .csv nor an .npz file, nor a folder of .csv files")
        found = [_csv(each, str(each.relative_to(path.parent)), channels, label) for each in files]
    kept = [found[place] for place in chosen(len(found), limit)]
    groups = {"steps": sum(len(each.values) for each in kept)}
    if any(each.labels is not None for each in kept):
        groups["labelled windows"] = sum(len(each.windows) for each in kept)
    seal = digest([file.read_bytes() for file in files], limit)
    return kept, Data(name=path.resolve().name, digest=seal, items=len(kept), groups=groups)


def _benchmark(folder: Path) -> tuple[list[Recorded], list[Path]]:
    try:
        series = nab.read(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{folder} cannot be read as the Numenta benchmark: {type(error).__name__}: {error}"
        ) from error
    if not series:
        raise EvaluationError(f"{folder / 'data'} has none of the series that are labelled")
    found = []
    for each in series:
        labels = np.zeros(len(each.values), bool)
        for first, last in each.windows:
            labels[first : last + 1] = True
        found.append(Recorded(each.name, known(each.values[:, None]), labels, judged=each))
    return found, [folder / _LABELS, *(folder / "data" / each.name for each in series)]


def _csv(path: Path, name: str, channels: Sequence[str], label: str | None) -> Recorded:
    columns = read_columns(path)
    names = _channels(columns, channels, label)
    values = np.array([columns.numbers(each) for each in names], np.float64).T
    stamps = [_stamp(each) for each in columns[_TIME]] if _TIME in columns.texts else None
    return Recorded(name, known(values), columns.labels(label, names), stamps)


def _channels(columns: Columns, channels: Sequence[str], label: str | None) -> list[str]:
    """The model's own, by name; of one channel the only column there is."""
    left = [each for each in columns.texts if each not in {_TIME, label, *LABELS}]
    if len(channels) == 1 and channels[0] not in columns.texts and len(left) == 1:
        return left
    for each in channels:
        _ = columns[each]  # refused where it is not there
    return list(channels)


def _stamp(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _arrays(path: Path, channels: int) -> list[Recorded]:
    values, anomalous = labelled.read_series(path)
    if values.shape[2] != channels:
        raise EvaluationError(
            f"the series of {path.name} have {values.shape[2]} channels, and the model takes {channels}"
        )
    told = bool(anomalous.any())
    return [
        Recorded(f"{path.stem}[{place}]", known(each), np.full(len(each), odd) if told else None)
        for place, (each, odd) in enumerate(zip(values, anomalous, strict=True))
    ]


def stretches(labels: Truths, longest: int) -> NDArray[np.int64]:
    """Units that steps are drawn in: neighbours with one label, at most so many. Scores of neighbours are much alike."""
    ends = np.concatenate([[0], np.flatnonzero(np.diff(labels.astype(np.int8))) + 1, [len(labels)]])
    units, first = np.zeros(len(labels), np.int64), 0
    for start, end in pairwise(ends.tolist()):
        own = np.arange(end - start) // longest
        units[start:end] = first + own
        first += int(own[-1]) + 1
    return units
