"""The server one would write in an afternoon: FastAPI and a diffusers pipeline, one request at a time.

python -m tests.load.peers.diffusers_server FOLDER PORT THREADS
"""

import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.load.peers.pictures import Pictures, answer


def create(pictures: Pictures) -> FastAPI:
    """Answer `/v1/images/generations`."""
    app, alone = FastAPI(), threading.Lock()

    @app.post("/v1/images/generations")
    def generations(fields: dict[str, Any]) -> dict[str, Any]:
        with alone:
            [picture] = pictures.draw([fields])
        return answer(picture)

    return app


if __name__ == "__main__":
    _folder, _port, _threads = sys.argv[1:]
    _app = create(Pictures(Path(_folder), int(_threads)))
    uvicorn.run(_app, port=int(_port), log_level="error", access_log=False)
