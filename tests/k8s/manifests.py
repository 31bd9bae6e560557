"""The manifests as a cluster would get them: rendered by kustomize, with what the tests ask of them."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

K8S = Path(__file__).parents[2] / "k8s"
# Each variant, and the file of it that holds the Serve configuration.
VARIANTS = {
    "base": "base/rayservice.yaml",
    "overlays/dev-cpu": "overlays/dev-cpu/single-pod.yaml",
    "overlays/gpu": "overlays/gpu/serve-config.yaml",
}

Document: TypeAlias = dict[str, Any]


def renderer() -> list[str] | None:
    """The command that renders a folder, or None where neither kubectl nor kustomize is installed."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            return command
    return None


def render(variant: str) -> list[Document]:
    """All objects of one variant."""
    command = renderer()
    if command is None:
        raise FileNotFoundError("neither kubectl nor kustomize is installed")
    result = subprocess.run([*command, str(K8S / variant)], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(result.stdout))


def one(documents: list[Document], kind: str) -> Document:
    """The only object of a kind."""
    (document,) = (document for document in documents if document["kind"] == kind)
    return document


def serve_config(rayservice: Document) -> Document:
    """What the operator sends to Ray Serve: `serveConfigV2`, parsed."""
    config: Document = yaml.safe_load(rayservice["spec"]["serveConfigV2"])
    return config


def written_serve_config(variant: str) -> Document:
    """The same without rendering, from the file that says it: deployable on a local Ray (`overlays/dev-cpu` fits one node)."""
    return serve_config(yaml.safe_load((K8S / VARIANTS[variant]).read_text(encoding="utf-8")))


def groups(rayservice: Document) -> Iterator[tuple[str, Document]]:
    """Name and specification of the head group and of every worker group."""
    cluster = rayservice["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group


def environment(container: Document) -> dict[str, str]:
    """Variables of a container, by name."""
    return {variable["name"]: variable["value"] for variable in container.get("env", [])}


def pod(group: Document) -> Document:
    """The pod a group makes, as an object of its own."""
    template = group["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", **template["metadata"]},
        "spec": template["spec"],
    }
