"""A plain Ray Serve server: `@serve.batch` gathers whole requests, and one replica hands each batch to a diffusers pipeline.

    python -m tests.load.peers.ray_server FOLDER PORT THREADS TEMPORARY_FOLDER

`PUT /wait?seconds=` sets how long a batch waits for more.
"""

import asyncio
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

import ray
from fastapi import FastAPI
from ray import serve

from tests.load.peers.pictures import Pictures, answer

MOST: Final = 16  # requests in a batch
app = FastAPI()


@serve.deployment(max_ongoing_requests=64)
@serve.ingress(app)
class Server:
    """One replica."""

    def __init__(self, folder: str, threads: int) -> None:
        self._pictures = Pictures(Path(folder), threads)

    @app.post("/v1/images/generations")
    async def generations(self, fields: dict[str, Any]) -> dict[str, Any]:
        return answer(await self.draw(fields))

    @app.put("/wait")
    async def wait(self, seconds: float) -> None:
        self.draw.set_batch_wait_timeout_s(seconds)  # type: ignore[attr-defined]  # by the decorator

    @serve.batch(max_batch_size=MOST)
    async def draw(self, asked: list[dict[str, Any]]) -> list[bytes]:
        # On a thread, so that the next batch gathers meanwhile.
        return await asyncio.to_thread(self._pictures.draw, asked)


def main() -> None:
    folder, port, threads, temporary = sys.argv[1:]
    ray.init(
        num_cpus=int(threads) + 2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=temporary,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    sized = Server.options(ray_actor_options={"num_cpus": int(threads)})  # type: ignore[attr-defined]  # by the decorator
    serve.run(sized.bind(folder, int(threads)))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())  # Ray's own would leave at once
    ended.wait()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
