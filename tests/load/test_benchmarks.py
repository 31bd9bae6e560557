"""The benchmarks' own parts, without their clock: they are run by hand (`make benchmarks`), not by the test command."""

import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from deployments.config import HostConfig
from deployments.metrics import Metrics
from deployments.studio import open_studio
from tests import packages
from tests.load import wrk
from tests.load.http_anomalies import Line, show, write_body
from tests.load.peer_fastapi import create
from tests.load.text_streams import measure


async def test_the_peer_gives_the_graphs_own_score(tmp_path: Path) -> None:
    package = packages.autoencoder(tmp_path / "store", size=28)
    body = write_body(tmp_path, package)
    values = np.array(json.loads(body.read_bytes())["input"][0]["tensor"]["data"])
    transport = httpx.ASGITransport(create(package))
    async with httpx.AsyncClient(transport=transport, base_url="http://peer") as client:
        answer = await client.post("/v1/anomalies", content=body.read_bytes())
    assert answer.json()["scores"] == pytest.approx([np.maximum(values - 0.5, 0).mean()], rel=1e-4)


def test_the_body_is_what_both_servers_take(tmp_path: Path) -> None:
    fields = json.loads(write_body(tmp_path, packages.autoencoder(tmp_path, size=28)).read_bytes())
    assert fields["model"] == "tiny-ae"
    assert len(fields["input"][0]["tensor"]["data"]) == 784


def test_the_line_of_wrks_script_is_read() -> None:
    line = (
        'RESULT {"requests": 1000, "seconds": 2.0, "errors": 3, "p50_ms": 1.5, "p99_ms": 9.0, "mean_ms": 2.0}'
    )
    assert wrk.parse(f"Running 2s test\n{line}\n") == wrk.Measured(500.0, 3, 1.5, 9.0, 2.0)


def test_a_machine_without_wrk_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(wrk.WrkMissingError, match="apt-get install wrk"):
        wrk.check()


def test_the_table_marks_what_misses_its_aim() -> None:
    lines = [
        Line("tiny", server, 16, rate, 1.0, 2.0, 0, rate / 1000, [rate])
        for server, rate in (("peer", 1000.0), ("direct", 700.0), ("gateway", 200.0))
    ]
    console = Console(record=True, width=100, force_terminal=True, file=io.StringIO())
    show(lines, console)
    text = console.export_text(styles=True)
    assert "\x1b[32m0.70" in text
    assert "\x1b[31m0.20" in text


async def test_streams_that_run_together_share_their_steps(tmp_path: Path) -> None:
    packages.text(tmp_path, name="tiny-attention", attention=True, context=512)
    metrics = Metrics(CollectorRegistry())
    studio = open_studio(HostConfig.model_validate({"store": str(tmp_path), "slots": 4}), metrics)
    try:
        alone = await measure(studio, metrics, "tiny-attention", 1, tokens=400, answers=1)
        together = await measure(studio, metrics, "tiny-attention", 4, tokens=400, answers=1)
    finally:
        studio.close()
    assert alone.mean_batch == pytest.approx(1.0)
    assert together.mean_batch > 1.5
    assert together.tokens_per_second > 0
