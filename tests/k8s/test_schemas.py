"""Every object against the schema of its kind."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.derive_schema import strict
from tests.k8s.manifests import Document, groups, pod

SCHEMA = json.loads((Path(__file__).parent / "rayservice-v1.schema.json").read_text(encoding="utf-8"))
KUBERNETES = ("1.31", "1.37")


def problems(rayservice: Document) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(rayservice)]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_own_kinds(documents: list[Document], version: str) -> None:
    own = [document for document in documents if document["kind"] != "RayService"]
    assert own
    for document in own:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_pod_templates(rayservice: Document, version: str) -> None:
    for _, group in groups(rayservice):
        kubernetes_validate.validate(pod(group), version, strict=True)


def test_a_typing_error_in_a_pod_is_seen(rayservice: Document) -> None:
    broken = pod(next(groups(rayservice))[1])
    broken["spec"] = {**broken["spec"], "terminationGracePeriod": 30}
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_rayservice(rayservice: Document) -> None:
    assert problems(rayservice) == []


@pytest.mark.parametrize(
    "break_it",
    [
        lambda spec: spec.update(serveConfigV3=""),
        lambda spec: spec.update(serveConfigV2={}),
        lambda spec: spec.pop("rayClusterConfig"),
        lambda spec: spec["rayClusterConfig"].update(rayversion="2.60.0"),
        lambda spec: spec["rayClusterConfig"]["authOptions"].update(mode="password"),
        lambda spec: spec["rayClusterConfig"]["headGroupSpec"].pop("template"),
        lambda spec: spec["rayClusterConfig"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ],
)
def test_the_schema_refuses(rayservice: Document, break_it: Callable[[Document], object]) -> None:
    broken = copy.deepcopy(rayservice)
    break_it(broken["spec"])
    assert problems(broken)


def test_how_the_schema_was_derived() -> None:
    derived = strict(
        {
            "type": "object",
            "description": "left out",
            "required": ["a", "b"],
            "properties": {
                "a": {"type": "integer", "default": 1},
                "b": {"type": "string", "nullable": True},
                "c": {"anyOf": [{"type": "integer"}], "x-kubernetes-int-or-string": True},
                "d": {"type": "object", "additionalProperties": {"type": "string", "description": "out"}},
                "template": {"type": "object", "properties": {"spec": {"type": "object"}}},
                "tlsOptions": {"type": "object"},
            },
        }
    )
    assert derived == {
        "type": "object",
        "required": ["b"],
        "additionalProperties": False,
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": ["string", "null"]},
            "c": {"type": ["integer", "string"]},
            "d": {"type": "object", "additionalProperties": {"type": "string"}},
            "template": {"type": "object"},
        },
    }
