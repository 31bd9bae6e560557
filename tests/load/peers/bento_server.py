"""BentoML with its own adaptive batching.

    python -m tests.load.peers.bento_server PACKAGE_FOLDER PORT WORKERS THREADS WAIT

Runs with the interpreter of the peers' own environment. WAIT says nothing here: how long a batch waits, BentoML learns.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import bentoml  # type: ignore[import-not-found]  # lives in the peers' environment

from tests.load.peers.scoring import Scorer, Setting

MOST: Final = 1024  # items in a batch
_TOLD: Final = "PEER_ARGUMENTS"  # its workers are processes that know only the service's name
_folder, *_rest = json.loads(os.environ.get(_TOLD, '["", "1", "1", "0"]'))
_setting = Setting.of(_rest)


@bentoml.service(workers=_setting.workers, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Anomalies:
    """Scores items."""

    def __init__(self) -> None:
        self._scorer = Scorer(Path(_folder), _setting.threads)

    @bentoml.api(batchable=True, max_batch_size=MOST, route="/v1/anomalies")  # type: ignore[untyped-decorator]
    def score(self, input: list[dict[str, Any]]) -> list[float]:  # noqa: A002 - the field's name
        """The items of all requests of a batch."""
        return self._scorer.score(self._scorer.read(input))


def main() -> None:
    folder, port, *rest = sys.argv[1:]
    environment = {
        **os.environ,
        _TOLD: json.dumps([folder, *rest]),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(Path(sys.prefix) / "bentoml"),
    }
    serve = ["-m", "bentoml", "serve", "tests.load.peers.bento_server:Anomalies"]
    where = ["--host", "127.0.0.1", "--port", port]
    os.execve(sys.executable, [sys.executable, *serve, *where], environment)  # noqa: S606 - becomes the server


if __name__ == "__main__":
    main()
