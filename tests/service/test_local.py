import socket
from pathlib import Path

import pytest

from deployments.config import Config, HostConfig
from service import local
from service.settings import Settings


def test_free_ports_are_not_those_that_a_kernel_gives_to_anybody() -> None:
    ports = local.free_ports(50)
    assert len(set(ports)) == 50
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if given.is_file():
        assert max(ports) < int(given.read_text().split()[0])


def test_a_port_in_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", local.free_ports(1)[0]))
        used = taken.getsockname()[1]
        monkeypatch.setattr(local, "_PORTS", range(used - 2, used + 3))
        assert used not in local.free_ports(4)


def test_a_proxy_that_is_replaced_outlives_every_answer() -> None:
    made = local.Local(Config(hosts=(HostConfig(),)), Settings(request_timeout_seconds=90.5))
    try:
        stop = int(made.environment()["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"])
    finally:
        made.sweep(())
    assert stop > 91
