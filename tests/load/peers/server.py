"""A peer that is an HTTP server: started on a port of its own, ended by its own id with whatever it started."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import psutil
import requests

from service.local import free_ports

_START_SECONDS: Final = 180
_END_SECONDS: Final = 60
# Of Ray alone: no statistics are sent, and no token is written to the user's home.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "PYTHONWARNINGS": "ignore",
}


class PeerFailedError(Exception):
    """The peer did not start."""


@contextlib.contextmanager
def serving(module: str, folder: str, *more: str) -> Iterator[str]:
    """Run `python -m module folder PORT more...`; yields its address when it answers there. Raises PeerFailedError."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", module, folder, str(port), *more]
    environment = {
        **os.environ,
        **_ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
    }
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=said, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            if not _answers(f"{url}/openapi.json", process):
                said.seek(0)
                raise PeerFailedError(
                    f"{module} does not answer: {said.read()[-2000:].decode(errors='replace')}"
                )
            yield url
        finally:
            _end(process)


def _answers(url: str, process: "subprocess.Popen[Any]") -> bool:
    """Wait until it does; False where it has ended, or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):  # it comes up
            if requests.get(url, timeout=5).ok:
                return True
        time.sleep(0.2)
    return False


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()  # nothing, where it has ended
