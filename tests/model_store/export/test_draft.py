"""Drafts are plain data: they say no torch word and survive the way into a subprocess."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from model_store.export.draft import GraphDraft, check_name, tensor
from model_store.export.errors import DraftError


def test_a_tensor_plays_the_role_of_its_name_unless_told() -> None:
    assert tensor("input", "float32", "batch", 3).role == "input"
    assert tensor("x", "float32", "batch", 3, role="input").role == "input"
    assert tensor("total", "int32").shape == ()


def test_a_graph_draft_survives_json() -> None:
    graph = GraphDraft(
        factory="nets:make",
        inputs=(tensor("x", "float32", "batch", 1, 8, 8),),
        outputs=(tensor("y", "int64", "batch"),),
        weights=Path("w.safetensors"),
        ranges={"x": (0.0, 1.0)},
        sizes={"batch": (2, 5)},
    )
    adapter = TypeAdapter(GraphDraft)

    assert adapter.validate_json(adapter.dump_json(graph)) == graph


@pytest.mark.parametrize("name", ["fashion-ae", "a", "v1.2_x", "0" * 63])
def test_good_names_pass(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "Fashion", "-a", "../a", "a b", "a/b", "0" * 64])
def test_a_name_that_no_package_can_have_is_refused(name: str) -> None:
    with pytest.raises(DraftError, match="is no package name"):
        check_name(name)


def test_drafts_and_publishing_import_no_torch() -> None:
    code = (
        "import sys, model_store.export.publish, model_store.export.options; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
