"""Folders like those of ADBench and NAB, small and made up; and whether a graph's rows are independent, to the last bit."""

import csv
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.session import Device, open_graph
from model_store.store import Package
from model_store.zoo import adbench, series_ae, table_ae

FEATURES = len(table_ae.FEATURES)


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal rows [count, features]: all follow two hidden numbers, each with a unit of its own."""
    chance = np.random.default_rng(seed)
    hidden = chance.standard_normal((count, 2))
    mixed = hidden @ np.random.default_rng(9).standard_normal((2, FEATURES))
    noisy = mixed + 0.1 * chance.standard_normal(mixed.shape)
    return (3 + noisy * np.arange(1, FEATURES + 1)).astype(np.float32)


def write_tables(data: Path, sets: tuple[str, ...] = ("1_other", table_ae.SHIPPED)) -> Path:
    """Sets of 60 normal rows and 12 anomalies, in which the features lost each other; return `data`."""
    (data / adbench.DATA_FOLDER).mkdir(parents=True)
    for seed, name in enumerate(sets):
        odd = np.random.default_rng(seed).permuted(rows(12, seed + 50), axis=0)
        labels = np.repeat([0, 1], [60, 12])
        np.savez(
            data / adbench.DATA_FOLDER / f"{name}.npz", X=np.concatenate([rows(60, seed), odd]), y=labels
        )
    return data


def waves(count: int, seed: int = 0) -> NDArray[np.float64]:
    """A series of one wave and a little noise."""
    noise = np.random.default_rng(seed).standard_normal(count)
    return 50 + 10 * np.sin(np.arange(count) / 4 + seed) + 0.5 * noise


def write_series(data: Path, count: int = 600) -> Path:
    """Six series, each with a window around a jump; return `data`."""
    folder = data / series_ae.DATA_FOLDER
    (folder / "labels").mkdir(parents=True)
    (folder / "data").mkdir()
    labels = {}
    start = datetime(2020, 1, 1)  # noqa: DTZ001 - the benchmark's have no zone
    stamps = [(start + timedelta(minutes=step)).isoformat(" ") for step in range(count)]
    for seed in range(6):
        values = waves(count, seed)
        values[count * 3 // 4 + seed] += 60
        with (folder / "data" / f"{seed}.csv").open("w", newline="") as file:
            written = csv.writer(file)
            written.writerow(["timestamp", "value"])
            written.writerows(zip(stamps, values.tolist(), strict=True))
        labels[f"{seed}.csv"] = [[stamps[count * 3 // 4 - 10], stamps[count * 3 // 4 + 20]]]
    (folder / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    return data


def check_alone(package: Package, name: str, feeds: Mapping[str, NDArray[np.float32]]) -> None:
    """Fail unless each row of a graph has the same bytes alone and among others, wherever it stands."""
    session = open_graph(package, name, device=Device("cpu"), threads=1)
    outputs = [each.name for each in package.manifest.graphs[name].outputs]
    count = len(next(iter(feeds.values())))
    alone = [
        session.run({key: each[place : place + 1].copy() for key, each in feeds.items()}, outputs)
        for place in range(count)
    ]
    for order in (range(count), range(count - 1, -1, -1), [*range(count), *range(count), 0]):
        places = list(order)
        together = session.run({key: each[places] for key, each in feeds.items()}, outputs)
        for output, values in zip(range(len(outputs)), together, strict=True):
            for row, place in enumerate(places):
                assert values[row].tobytes() == alone[place][output][0].tobytes(), (name, output, row)
