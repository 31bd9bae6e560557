"""Starting and stopping: clear sentences instead of tracebacks, and nothing left behind."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Service, end, start


def refused(folder: Path, *options: str) -> str:
    """Output of a service that must not start."""
    service = start(folder, *options, wait=False)
    try:
        assert service.process.wait(60) != 0
    finally:
        end(service)
    service.reader.join(10)
    assert "Traceback" not in service.output
    return " ".join(service.output.split())


def test_a_port_that_is_taken(folder: Path, tiny_store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = refused(folder, "--store", str(tiny_store), "--port", str(port))
    assert f"Port {port} on 127.0.0.1 cannot be used" in output


def test_a_store_that_is_missing(folder: Path, tmp_path: Path) -> None:
    assert "✗" in refused(folder, "--store", str(tmp_path / "nowhere"))


def test_a_package_that_is_broken(folder: Path, tiny_store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "store"
    shutil.copytree(tiny_store, broken)
    graph = next((broken / "tiny-ae").glob("*/*.onnx"))
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    output = refused(folder, "--store", str(broken))
    assert "tiny-ae" in output


def test_options_that_are_wrong(folder: Path, tiny_store: Path, tmp_path: Path) -> None:
    assert "proxy" in refused(folder, "--store", str(tiny_store), "--proxy", "nginx")
    assert "device" in refused(folder, "--store", str(tiny_store), "--device", "tpu")
    assert "hosts file" in refused(folder, "--hosts", str(tmp_path / "no.yaml"))
    assert "nobody" in refused(folder, "--store", str(tiny_store), "--models", "nobody")


@pytest.mark.parametrize("proxy", ["haproxy", "python"])
def test_ctrl_c_leaves_nothing_behind(folder: Path, tiny_store: Path, proxy: str) -> None:
    service = start(folder, "--store", str(tiny_store), "--proxy", proxy, "--models", "tiny-ae")
    family = service.family()
    assert any("haproxy" in process.name() for process in family) == (proxy == "haproxy")
    assert service.stop() == 0
    assert "nothing is left running" in service.output or service.process.returncode == 0
    psutil.wait_procs(family, timeout=5)
    assert [process for process in family if process.is_running()] == []
    assert [path.name for path in service.folder.iterdir()] == []
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", service.port))


def test_no_serving_process_has_torch(service: Service) -> None:
    for replica in [*service.replicas("Host"), *service.replicas("Gateway")]:
        assert not [m.path for m in replica.memory_maps() if "/torch/" in m.path]


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, service.cli; heavy = {'ray', 'torch', 'onnxruntime'} & set(sys.modules); sys.exit(bool(heavy))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
