"""A real `atelier serve` on a free port, in its own process group and folders; ended by its own id."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import requests

from service.local import free_ports
from tests import packages
from tests.edits import editor
from tests.flows import flow

START_SECONDS = 120


@dataclass
class Service:
    """One running `atelier serve`."""

    process: "subprocess.Popen[str]"
    port: int
    folder: Path
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self, kind: str) -> list[psutil.Process]:
        """Replica processes by deployment name: Host or Gateway."""
        return [
            p
            for p in self.family()
            if any(f"ServeReplica:{name}:{kind}" in _title(p) for name in ("studio", "gateway"))
        ]

    def stop(self, seconds: float = 60) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def start(folder: Path, *options: str, wait: bool = True) -> Service:
    """Start `atelier serve`; its temporary files go below `folder`."""
    [port] = free_ports(1)
    command = [str(Path(sys.executable).with_name("atelier")), "serve", "--port", str(port), *options]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    service = Service(process, port, folder)
    if wait:
        _wait(service)
    return service


def _wait(service: Service) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            raise AssertionError(f"atelier serve ended with {service.process.returncode}:\n{service.output}")
        if "Press Ctrl-C" in service.output:
            return
        time.sleep(0.1)
    end(service)
    raise AssertionError(f"atelier serve did not start:\n{service.output}")


def end(service: Service) -> None:
    """Stop, by force where needed, only what this service started."""
    family = service.family() if service.process.poll() is None else []
    try:
        if service.process.poll() is None:
            service.stop()
    except subprocess.TimeoutExpired:
        service.process.kill()
    for process in family:
        if process.is_running():
            process.kill()


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = packages.store(tmp_path_factory.mktemp("store"))
    flow(folder)
    flow(folder, name="tiny-words", text=True)
    editor(folder)
    return folder


@pytest.fixture(scope="session")
def service(tiny_store: Path) -> Iterator[Service]:
    with short_folder() as folder:
        running = start(folder, "--store", str(tiny_store))
        yield running
        end(running)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short name: sockets live in it, and their names are limited to 97 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="e", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as short:
        yield short


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session
