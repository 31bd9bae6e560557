"""Whether a graph's rows are independent, to the last bit."""

from dataclasses import replace
from typing import Final

import numpy as np

from model_store.export.cases import Case, random_cases
from model_store.export.draft import Draft
from model_store.session import Device, open_graph
from model_store.store import Package

MOST: Final = 17


def check_rows(package: Package, draft: Draft) -> None:
    """Fail unless each row of every graph has the same bytes alone and in batches of 2 to 17. Replays the golden pairs."""
    for name, graph in draft.graphs.items():
        session = open_graph(package, name, device=Device("cpu"), threads=1)
        outputs = [each.name for each in graph.outputs]
        for case in random_cases(replace(graph, sizes={**graph.sizes, "batch": (MOST, 1)}))[::2]:
            alone = [session.run(_rows(case, place, place + 1), outputs) for place in range(MOST)]
            assert all(np.ptp(np.stack(each)) > 0 for each in zip(*alone, strict=True)), name
            for count in range(2, MOST + 1):
                for place, rows in enumerate(zip(*session.run(_rows(case, 0, count), outputs), strict=True)):
                    for row, expected in zip(rows, alone[place], strict=True):
                        assert row.tobytes() == expected.tobytes(), (name, count, place)


def _rows(case: Case, first: int, end: int) -> Case:
    # Copied: some sums depend on where in memory a row begins.
    return {name: array[first:end].copy() for name, array in case.items()}
