"""One machine's own Ray and Serve: started for a service, taken away with it, nothing left behind.

Everything a run writes lives in one temporary folder, and its ports are its own, so that two services do not meet.
"""

import contextlib
import io
import logging
import math
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import psutil

from deployments.config import Config
from service.settings import Settings, runtime_environment, set_environment

# Seconds a replica may take to finish running answers when the service stops.
DRAIN_SECONDS: Final = 10
_LONGEST_PARENT: Final = 14
# Neither those that a kernel hands to whoever asks for any, as Ray's processes do while they start (32768 and up), nor those
# that Ray has for its workers (below 20000) and replicas (30000 and up): what is free now is free when it is used.
_PORTS: Final = range(20_000, 30_000)


class StartError(Exception):
    """The service cannot start; the message is one sentence for the person at the terminal."""


class Local:
    """A service on this machine. Use as a context: leaving it stops everything it started."""

    def __init__(self, config: Config, settings: Settings) -> None:
        self.config = config
        self.host = settings.http_host
        self.port = settings.http_port
        self._settings = settings
        # HAProxy takes sockets with names of 97 bytes and Serve makes 68 of them.
        parent = tempfile.gettempdir()
        short = parent if len(parent) <= _LONGEST_PARENT else "/tmp"  # noqa: S108 - mkdtemp makes it our own
        self._folder = Path(tempfile.mkdtemp(prefix="ate-", dir=short))

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"

    def start_ray(self) -> None:
        """Start Ray. Its switches must be in the environment before Ray is imported, here and in its children."""
        set_environment({**self._settings.to_environment(), **self.environment()})
        import ray  # noqa: PLC0415 - reads the environment when imported

        cpus = sum(host.num_cpus * host.replicas for host in self.config.hosts) + 2
        ray.init(
            num_cpus=int(cpus + 1),  # logical: shares for Serve to hand out, not cores
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(self._folder / "ray"),
        )

    def start_serve(self) -> None:
        """Deploy all hosts and the gateway together, and wait until they answer."""
        from ray import serve  # noqa: PLC0415
        from ray.serve.schema import LoggingConfig  # noqa: PLC0415

        from service.app import gateway, host  # noqa: PLC0415

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
        serve.start(http_options={"host": self.host, "port": self.port}, logging_config=quiet)
        targets = [
            serve.RunTarget(
                host(h.model_dump(mode="json")), name=h.name, route_prefix=f"/{h.name}", logging_config=quiet
            )
            for h in self.config.hosts
        ]
        names = {"hosts": [h.name for h in self.config.hosts]}
        targets.append(
            serve.RunTarget(gateway(names), name="gateway", route_prefix="/", logging_config=quiet)
        )
        serve.run_many(targets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Drain and stop Serve and Ray, end what they left, remove the folder."""
        import ray  # noqa: PLC0415
        from ray import serve  # noqa: PLC0415

        family = psutil.Process().children(recursive=True)
        # Ray tells the driver of actors that end because it ends them.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            with contextlib.suppress(Exception):
                serve.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(Exception):
                ray.shutdown()
        self.sweep(family)

    def sweep(self, family: Sequence[psutil.Process]) -> None:
        """End what is left of these processes and of whatever works in this run's folder; remove the folder."""
        _end([*family, *self._orphans()])
        shutil.rmtree(self._folder, ignore_errors=True)

    def _orphans(self) -> Iterator[psutil.Process]:
        """Processes of this run that nobody owns any more: HAProxy outlives the actor that started it."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self._folder) in argument for argument in process.cmdline()):
                    yield process

    def environment(self) -> dict[str, str]:
        """The switches of Ray, Serve, HAProxy and ONNX Runtime for this run."""
        return {
            **runtime_environment(self._settings),
            # Nobody else knows it: other users of this machine cannot submit work to this Ray.
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
            "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 << 20),
            **(self._haproxy() if self._settings.proxy == "haproxy" else {}),
        }

    def _haproxy(self) -> dict[str, str]:
        folder, longest = self._folder / "h", self._settings.request_timeout_seconds
        stats, metrics, fallback, fallback_grpc = free_ports(4)
        return {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            # Ray has HAProxy read its configuration anew, most of all while a service starts; the process that served
            # until then ends by itself, but no answer is to be cut off.
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(longest) + DRAIN_SECONDS),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.2",
            "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        }


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            each = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("", port))
                found.append(port)
    return found


def cores() -> int:
    """CPU cores this process may use."""
    return (
        len(psutil.Process().cpu_affinity() or [0])
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count() or 1
    )


def check_port(host: str, port: int) -> None:
    """Raise StartError unless the address can be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise StartError(f"There is no address {host!r} on this machine.") from error
    except OSError as error:
        raise StartError(
            f"Port {port} on {host} cannot be used: {(error.strerror or '').lower()}."
        ) from error


def _end(processes: list[psutil.Process]) -> None:
    """Ask, wait, insist - only for the processes given."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=2)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=2)
