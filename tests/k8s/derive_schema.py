"""Derive the small JSON Schema of a RayService that the tests check against from KubeRay's custom resource definition.

    python -m tests.k8s.derive_schema ray.io_rayservices.yaml > tests/k8s/rayservice-v1.schema.json

The definition (Apache-2.0, `ray-operator/config/crd/bases/ray.io_rayservices.yaml` of a KubeRay release) is a megabyte,
nine tenths of it pod templates: these become plain objects here, and the tests check them as the pods they make.
Parts that our manifests do not use are left out, so using one fails until this list allows it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

UNUSED = {
    "gcsFaultToleranceOptions", "headService", "historyServerOptions", "ingressOptions", "networkPolicy", "serveService",
    "status", "tlsOptions", "scaleStrategy",
}  # fmt: skip
KEPT = {
    "type",
    "enum",
    "required",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "anyOf",
    "format",
}


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """Turn a structural schema of Kubernetes into a JSON Schema that refuses what it does not know."""
    out = {key: value for key, value in node.items() if key in KEPT}
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in node:
        known = {name: part for name, part in node["properties"].items() if name not in UNUSED}
        out["properties"] = {
            name: {"type": "object"} if name in {"template", "metadata"} else strict(part)
            for name, part in known.items()
        }
        out["additionalProperties"] = False
        # What has a default may be left out, whatever the definition calls required.
        out["required"] = [name for name in node.get("required", []) if "default" not in known.get(name, {})]
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = strict(node["additionalProperties"])
    if "items" in node:
        out["items"] = strict(node["items"])
    if node.get("nullable"):
        out["type"] = [out["type"], "null"]
    return out


def derive(definition: Path) -> dict[str, Any]:
    """Schema of the served version `v1`."""
    crd = yaml.load(definition.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (version,) = (version for version in crd["spec"]["versions"] if version["name"] == "v1")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Derived by tests/k8s/derive_schema.py from KubeRay v1.7.0 (Apache-2.0).",
        **strict(version["schema"]["openAPIV3Schema"]),
    }


if __name__ == "__main__":
    json.dump(derive(Path(sys.argv[1])), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
