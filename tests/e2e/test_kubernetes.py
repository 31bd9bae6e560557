"""The Serve configuration of the Kubernetes manifests, deployed on a Ray of this machine as the operator would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests
import yaml

from deployments.config import Config
from service.local import Local, free_ports
from service.settings import Settings
from tests.k8s.manifests import written_serve_config

START_SECONDS = 120


def test_serve_config_of_the_manifest_answers(folder: Path, tiny_store: Path) -> None:
    [port] = free_ports(1)
    config = written_serve_config("overlays/dev-cpu")
    config["http_options"].update(host="127.0.0.1", port=port)
    hosts = [app for app in config["applications"] if app["import_path"] == "service.app:host"]
    for app in hosts:
        app["args"]["store"] = str(tiny_store)
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    local = Local(Config(), Settings(http_port=port))
    environment = {
        **os.environ,
        **local.environment(),
        "RAY_TMPDIR": str(folder),
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 4}',  # as the head's rayStartParams say
    }
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(file)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        answer = _ask(f"http://127.0.0.1:{port}", process, folder / "log")
        assert answer["choices"][0]["text"] == "def"
        direct = requests.get(f"http://127.0.0.1:{port}{hosts[0]['route_prefix']}/v1/models", timeout=10)
        assert {entry["id"] for entry in direct.json()["data"]} >= {"tiny-text", "tiny-ae"}
    finally:
        _end(process, local)


def _ask(url: str, process: "subprocess.Popen[bytes]", log: Path) -> dict[str, list[dict[str, str]]]:
    body = {"model": "tiny-text", "prompt": "abc", "max_tokens": 3, "temperature": 0}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = requests.post(f"{url}/v1/completions", json=body, timeout=30)
        except requests.RequestException:
            pass
        else:
            if answer.status_code == 200:
                found: dict[str, list[dict[str, str]]] = answer.json()
                return found
        time.sleep(0.2)
    raise AssertionError(f"the configuration did not answer:\n{log.read_text()[-4000:]}")


def _end(process: "subprocess.Popen[bytes]", local: Local) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
    local.sweep(family)
