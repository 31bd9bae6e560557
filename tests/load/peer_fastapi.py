"""The server one would write in an afternoon: FastAPI, uvicorn, ONNX Runtime, one process, no batching.

What `http_anomalies` compares with: the same graph, the same request, nothing checked, nothing measured.

    python -m tests.load.peer_fastapi PACKAGE_FOLDER PORT
"""

import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from model_store.manifest import Manifest


def create(package: Path) -> FastAPI:
    """Score the first item of a `/v1/anomalies` body with the package's default score."""
    manifest = Manifest.model_validate_json((package / "model.json").read_bytes())
    graph = manifest.graphs["reconstruct"]
    assert manifest.scoring is not None
    role = f"score.{manifest.scoring.default}"
    (output,) = (tensor.name for tensor in graph.outputs if tensor.role == role)
    source = graph.inputs[0]
    shape = [1, *(size for size in source.shape[1:] if isinstance(size, int))]
    session = onnxruntime.InferenceSession(str(package / graph.file), providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/v1/anomalies")
    async def score(request: Request) -> Response:
        body = orjson.loads(await request.body())
        values = np.array(body["input"][0]["tensor"]["data"], np.float32).reshape(shape)
        (scores,) = session.run([output], {source.name: values})
        return Response(orjson.dumps({"score": float(scores[0])}), media_type="application/json")

    return app


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    uvicorn.run(create(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="error", access_log=False)
