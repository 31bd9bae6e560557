"""A real server with known delays, on a free port of this machine."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from tests.service.loadtest.known_server import Server


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    server = Server()
    listener = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(server.app(), log_level="error", ws="none", lifespan="off")
    door = uvicorn.Server(config)
    thread = threading.Thread(target=door.run, args=([listener],))
    thread.start()
    yield server
    door.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def server(running: Server) -> Server:
    """The running server, as new."""
    fresh = Server()
    for name in ("cards", "delay", "handler", "bodies", "headers", "live", "most_live"):
        setattr(running, name, getattr(fresh, name))
    return running


@pytest.fixture
def closed_port() -> str:
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
