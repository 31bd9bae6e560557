"""What every peer of `tests.load.item_peers` does with items: the same graph by ONNX Runtime, nothing checked.

Peers run in an environment of their own, so this imports nothing of the project.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

_GRAPHS: Final = ("score", "encode", "reconstruct")  # those that compute least first, as the service chooses


@dataclass(frozen=True, slots=True)
class Setting:
    """How a peer is run."""

    workers: int = 1
    threads: int = 1  # of each worker's session; 0: as many as there are cores
    wait: float = 0.0  # seconds a batch waits for more, where the peer has to be told

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Setting":
        """From a command line."""
        workers, threads, wait = arguments
        return cls(int(workers), int(threads), float(wait))

    @property
    def arguments(self) -> tuple[str, ...]:
        """For a command line."""
        return str(self.workers), str(self.threads), str(self.wait)


class Scorer:
    """A package's default score."""

    def __init__(self, package: Path, threads: int = 0) -> None:
        manifest = json.loads((package / "model.json").read_bytes())
        role = f"score.{manifest['scoring']['default']}"
        graph, self._output = next(
            (graph, output["name"])
            for graph in (manifest["graphs"].get(key, {"outputs": []}) for key in _GRAPHS)
            for output in graph["outputs"]
            if output["role"] == role
        )
        [source] = graph["inputs"]
        self._input, self._shape = source["name"], source["shape"][1:]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(package / graph["file"]), options, providers=["CPUExecutionProvider"]
        )

    def read(self, items: Sequence[Any]) -> Any:
        """The items of a request as the graph's input."""
        data = [item["tensor"]["data"] for item in items]
        return np.array(data, np.float32).reshape(-1, *self._shape)

    def score(self, values: Any) -> list[float]:
        """One score an item."""
        [scores] = self._session.run([self._output], {self._input: values})
        return [float(score) for score in scores]
