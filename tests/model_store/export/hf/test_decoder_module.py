"""Every family's graph gives transformers' logits and greedy tokens, alone and in a ragged batch."""

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from model_store.export.hf import job as jobs
from model_store.export.hf.exported import Exported
from model_store.export.hf.proof import prove
from model_store.export.parity import Figure
from tests.model_store.export.hf.tiny import FAMILIES, exported, save


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_what_transformers_computes(family: str, tmp_path: Path) -> None:
    report = exported(save(family, tmp_path / "model"), tmp_path / "work")

    figures: list[Figure] = []
    path = tmp_path / "work" / jobs.GRAPH
    prove(Exported(path).open(), report, jobs.read_references(tmp_path / "work"), figures.append)

    assert [each.error <= 1e-3 for each in figures] == [True] * 4
    assert figures[-1].cases == 192
    nodes = Counter(node.op_type for node in ir.load(path).graph)
    print(family, nodes)
