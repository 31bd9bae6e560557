import re
import shutil
import subprocess

import pytest

from service.settings import Settings, runtime_environment
from tests.k8s.manifests import K8S

TEXT = (K8S / "Dockerfile").read_text(encoding="utf-8")
FINAL = TEXT.rpartition("\nFROM ")[2]


def test_the_final_stage_is_small_and_not_root() -> None:
    assert "pip" not in FINAL
    assert "torch" not in FINAL
    assert re.search(r"^USER 1000:1000$", FINAL, re.MULTILINE)
    assert "HOME=/tmp" in FINAL


def test_the_image_switches_telemetry_off() -> None:
    switches = runtime_environment(Settings.from_environment({}))
    for name in ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED"):
        assert f"{name}={switches[name]}" in FINAL


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (K8S / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
    assert {name for line in copied for name in line.split()} == allowed
    assert all((K8S.parent / name).exists() for name in allowed)


@pytest.mark.skipif(
    shutil.which("hadolint") is None, reason="linting the Dockerfile needs hadolint on the PATH"
)
def test_hadolint_finds_nothing() -> None:
    result = subprocess.run(
        ["hadolint", str(K8S / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
