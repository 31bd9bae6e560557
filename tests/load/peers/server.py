"""A peer that is an HTTP server: started on a port of its own, ended by its own id with whatever it started."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import requests

from service.local import free_ports

_START_SECONDS: Final = 180
_END_SECONDS: Final = 60
_ROOT: Final = Path(__file__).parents[3]
# Of Ray alone: no statistics are sent, and no token is written to the user's home.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "PYTHONWARNINGS": "ignore",
}


class PeerFailedError(Exception):
    """The peer did not start."""


class Peer:
    """A running one."""

    def __init__(self, url: str, process: "subprocess.Popen[Any]") -> None:
        self.url = url
        self._process = process

    def suspend(self) -> None:
        """Take the processor from all its processes: some look for work a thousand times a second."""
        for each in self._family():
            each.suspend()

    def resume(self) -> None:
        """Give it back."""
        for each in self._family():
            each.resume()

    def end(self) -> None:
        """End what it started as well."""
        if self._process.poll() is not None:
            return
        self.resume()
        family = self._family()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]


@contextlib.contextmanager
def serving(module: str, folder: str, *more: str) -> Iterator[str]:
    """Run `python -m module folder PORT more...`; yields its address when it answers there. Raises PeerFailedError."""
    with running(module, folder, *more) as peer:
        yield peer.url


@contextlib.contextmanager
def running(
    module: str, folder: str, *more: str, python: Path | None = None, ready: str = "openapi.json"
) -> Iterator[Peer]:
    """The same, by another environment's `python` too, and ready when it answers at the path `ready`."""
    [port] = free_ports(1)
    command = [str(python or sys.executable), "-m", module, folder, str(port), *more]
    # Another environment is not to find what is installed in this one.
    paths = [str(_ROOT)] if python else [each for each in sys.path if each]
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=said, stderr=subprocess.STDOUT
        ) as process,
    ):
        peer = Peer(f"http://127.0.0.1:{port}", process)
        try:
            if not _answers(f"{peer.url}/{ready}", process):
                said.seek(0)
                raise PeerFailedError(
                    f"{module} does not answer: {said.read()[-2000:].decode(errors='replace')}"
                )
            yield peer
        finally:
            peer.end()


def _answers(url: str, process: "subprocess.Popen[Any]") -> bool:
    """Wait until it does; False where it has ended, or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):  # it comes up
            if requests.get(url, timeout=5).ok:
                return True
        time.sleep(0.2)
    return False
