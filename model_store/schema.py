"""JSON Schema of `model.json`, for other programs: `python -m model_store.schema > docs/model.schema.json`."""

import json
import sys

from model_store.manifest import Manifest


def json_schema() -> str:
    """The schema as it is published, draft 2020-12."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    # Pydantic says which paths are files, and leaves out that no others may be.
    schema["properties"]["files"]["additionalProperties"] = False
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
