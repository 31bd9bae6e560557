"""LitServe with its own batching: whole requests wait for each other, and a worker scores their items together.

    python -m tests.load.peers.litserve_server PACKAGE_FOLDER PORT WORKERS THREADS WAIT

Runs with the interpreter of the peers' own environment.
"""

import sys
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import litserve  # type: ignore[import-not-found]  # lives in the peers' environment
import numpy as np

from tests.load.peers.scoring import Scorer, Setting

MOST: Final = 64  # requests in a batch


class Anomalies(litserve.LitAPI):  # type: ignore[misc]  # as above
    """Scores items."""

    def __init__(self, package: Path, setting: Setting) -> None:
        super().__init__(max_batch_size=MOST, batch_timeout=setting.wait, api_path="/v1/anomalies")
        self._package, self._threads = package, setting.threads

    def setup(self, device: str) -> None:
        """In each worker."""
        self._scorer = Scorer(self._package, self._threads)

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Items as an array."""
        return self._scorer.read(request["input"])

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Requests of any number of items."""
        return inputs

    def predict(self, inputs: list[Any]) -> list[list[float]]:
        """All requests' items in one run."""
        scores = self._scorer.score(np.concatenate(inputs))
        ends = list(accumulate(map(len, inputs)))
        return [scores[end - len(each) : end] for end, each in zip(ends, inputs, strict=True)]

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """One list a request already."""
        return output

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """As JSON."""
        return {"scores": output}


def main() -> None:
    folder, port, *rest = sys.argv[1:]
    setting = Setting.of(rest)
    server = litserve.LitServer(
        Anomalies(Path(folder), setting),
        accelerator="cpu",
        workers_per_device=setting.workers,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=int(port), log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
