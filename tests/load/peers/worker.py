"""A peer in a process of its own interpreter: cases go in as JSON lines, the times of tokens come out."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tests.load.text_runs import Case, Rates, rates


class PeerFailedError(Exception):
    """The peer's process ended."""


class Worker:
    """One running peer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, case: Case) -> Rates:
        """One run of a case. Raises PeerFailedError."""
        if self._process.stdin is None or self._process.stdout is None:
            raise PeerFailedError("it has no pipes")
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailedError(f"{self._process.args!r} ended with {self._process.wait()}")
        return rates(json.loads(line)["came"])


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[Worker]:
    """A worker that ends with the context."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        yield Worker(process)
        if process.stdin is not None:
            process.stdin.close()
