"""What k8s/README.md says, done."""

import os
import re
from pathlib import Path

import pytest

from tests.k8s.manifests import K8S, groups, one, render, renderer

README = (K8S / "README.md").read_text(encoding="utf-8")


def test_every_folder_it_names_exists() -> None:
    named = set(re.findall(r"(?:k8s/|`)((?:base|overlays/[a-z-]+|Dockerfile|[a-z]+\.yaml))\b", README))
    assert {"base", "overlays/gpu", "overlays/dev-cpu", "Dockerfile", "networkpolicy.yaml"} <= named
    assert all((K8S / name).exists() or (K8S / "base" / name).exists() for name in named)


@pytest.mark.skipif(renderer() is None, reason="rendering needs kubectl or kustomize on the PATH")
def test_the_overlay_it_shows_sets_image_and_namespace(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (overlay,) = (block for block in blocks if "kind: Kustomization" in block)
    base = os.path.relpath(K8S / "base", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("../base", base), encoding="utf-8")
    documents = render(str(tmp_path))
    assert {document["metadata"]["namespace"] for document in documents} == {"models"}
    images = {
        container["image"]
        for _, group in groups(one(documents, "RayService"))
        for container in group["template"]["spec"]["containers"]
    }
    assert images == {"registry.example.org/atelier:0.1.0"}
