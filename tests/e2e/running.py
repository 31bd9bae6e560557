"""A server over real engines whose steps a test holds, breaks and counts; and clients that behave as they like."""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import uvicorn
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.engine import Engine
from deployments.metrics import Metrics
from deployments.studio import open_studio
from service.api import create_app
from service.settings import Settings

MODELS: Final = ("tiny-text", "tiny-attention")


class Steps:
    """A model's steps as a test wants them: counted, held, broken. `rows` has the number of rows of each."""

    def __init__(self, engine: Engine[Any, Any]) -> None:
        self.rows: list[int] = []
        self.broken = False
        self._step = engine.program.step
        self._open = threading.Event()
        self._open.set()
        self._allowed = threading.Semaphore(0)
        engine.program.step = self  # type: ignore[method-assign]

    def __call__(self, rows: Sequence[Any]) -> Any:
        self.rows.append(len(rows))
        while not self._open.is_set() and not self._allowed.acquire(timeout=0.01):
            pass
        if self.broken:
            raise RuntimeError("the device is gone")
        return self._step(rows)

    def hold(self) -> None:
        """No step ends any more but those that are let."""
        self._open.clear()

    def let(self, count: int) -> None:
        """Let so many steps end; return when they have."""
        before = len(self.rows)
        self._allowed.release(count)
        eventually(lambda: len(self.rows) >= before + count)

    def go_on(self) -> None:
        self._open.set()


class Running:
    """A server over real engines, and clients that behave as they like."""

    def __init__(self, store: Path, config: dict[str, Any]) -> None:
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.studio = open_studio(
            HostConfig.model_validate({"store": str(store), "threads": 1, "device": "cpu"} | config), metrics
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        app = create_app(self.studio, Settings(), metrics)
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", access_log=False, ws="none", lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        self.http = httpx.Client(base_url="http://{}:{}".format(*self.address), timeout=30)
        self.steps = {name: Steps(self.engine(name)) for name in MODELS}
        self._clients: list[socket.socket] = []

    def close(self) -> None:
        for steps in self.steps.values():
            steps.broken = False
            steps.go_on()
        for client in self._clients:
            client.close()
        self.http.close()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
        self.studio.close()

    def engine(self, model: str) -> Engine[Any, Any]:
        return self.studio._models[model].engine

    def value(self, name: str, model: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"atelier_{name}", {"model": model, **labels}) or 0.0

    def idle(self, model: str) -> bool:
        scheduler = self.engine(model).scheduler
        return not scheduler.live and not len(scheduler.waiting)

    def complete(self, model: str, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/completions", json=body(model, **fields))

    def works(self, model: str) -> None:
        """Afterwards the next request is answered, and rightly."""
        answer = self.complete(model, prompt="abc", max_tokens=3)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"] == "def"

    def send(
        self, model: str, *, key: str = "", receive_bytes: int | None = None, **fields: Any
    ) -> socket.socket:
        """A connection on which a request was sent and nothing is read yet."""
        fields = body(model, **fields)
        client = sent(self.address, "/v1/completions", fields, key=key, receive_bytes=receive_bytes)
        self._clients.append(client)
        return client


def sent(
    address: tuple[str, int],
    path: str,
    fields: dict[str, Any],
    *,
    key: str = "",
    receive_bytes: int | None = None,
) -> socket.socket:
    """A connection of its own for one request, on which nothing is read yet."""
    client = socket.socket()
    client.settimeout(30)
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(address)
    content = orjson.dumps(fields)
    head = [f"POST {path} HTTP/1.1", "host: x", "connection: close"]
    head += ["content-type: application/json", f"content-length: {len(content)}"]
    head += [f"authorization: Bearer {key}"] if key else []
    client.sendall("\r\n".join([*head, "\r\n"]).encode() + content)
    return client


def body(model: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": "abc",
        "temperature": 0,
        "max_tokens": 1000,
        "ignore_eos": True,
        **fields,
    }


def read(client: socket.socket, *, pause_seconds: float = 0.0) -> bytes:
    """All that comes until the server closes the connection."""
    answer = b""
    while part := client.recv(65_536):
        answer += part
        time.sleep(pause_seconds)
    client.close()
    return answer


def last_event(answer: bytes) -> Any:
    return orjson.loads(answer.split(b"data: ")[-1].split(b"\n\n")[0])


def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)
