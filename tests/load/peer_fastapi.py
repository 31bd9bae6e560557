"""The server one would write in an afternoon: FastAPI, uvicorn, ONNX Runtime, one process, no batching.

What `http_anomalies` and `item_peers` compare with: the same graph, the same request, nothing checked, nothing measured.

    python -m tests.load.peer_fastapi PACKAGE_FOLDER PORT [WORKERS THREADS WAIT]

There is one worker, and nothing waits.
"""

import os
import sys
from pathlib import Path

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from tests.load.peers.scoring import Scorer, Setting


def create(package: Path, threads: int = 0) -> FastAPI:
    """Score the items of a `/v1/anomalies` body with the package's default score."""
    scorer = Scorer(package, threads)
    app = FastAPI()

    @app.post("/v1/anomalies")
    async def score(request: Request) -> Response:
        body = orjson.loads(await request.body())
        scores = scorer.score(scorer.read(body["input"]))
        return Response(orjson.dumps({"scores": scores}), media_type="application/json")

    return app


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    _folder, _port, *_rest = sys.argv[1:]
    _app = create(Path(_folder), Setting.of(_rest).threads if _rest else 0)
    uvicorn.run(_app, port=int(_port), log_level="error", access_log=False)
