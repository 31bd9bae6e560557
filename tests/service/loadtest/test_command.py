import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.responses import Response
from typer.testing import CliRunner, Result

from service.commands.loadtest import loadtest
from tests.service.loadtest.known_server import Server, refusal

app = typer.Typer(rich_markup_mode=None)
app.command()(loadtest)


def run(*options: str) -> Result:
    return CliRunner().invoke(app, options)


def test_a_run_is_reported(server: Server) -> None:
    result = run("--url", server.url, "--requests", "10", "--concurrency", "2", "--max-tokens", "3")
    assert result.exit_code == 0, result.output
    assert "gpt · text" in result.output
    assert "10 answered" in result.output
    assert "Time to first token" in result.output


@pytest.mark.parametrize("task", ["text", "image", "anomaly", "reconstruction"])
def test_every_task(server: Server, task: str) -> None:
    result = run("--url", server.url, "--task", task, "--requests", "4", "--batch", "2", "--json", "-")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["completed"] == 4
    counted = {"text": "total_output_tokens", "image": "total_images"}.get(task, "total_items")
    assert figures[counted] > 0


def test_standard_output_is_the_json_alone(server: Server) -> None:
    result = run("--url", server.url, "--rate", "300", "--requests", "20", "--json", "-")
    figures: dict[str, Any] = json.loads(result.stdout)
    assert "20 answered" in result.stderr
    assert figures["model_id"] == "gpt"
    assert figures["model_version"] == "3"
    assert figures["arrivals"] == "poisson"
    assert figures["p99_ttft_ms"] >= figures["p50_ttft_ms"] > 0
    assert figures["p99_e2el_from_schedule_ms"] > 0
    assert figures["environment"]["python"] == sys.version.split()[0]


def test_the_json_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    assert run("--url", server.url, "--requests", "3", "--json", str(target)).exit_code == 0
    assert json.loads(target.read_text())["completed"] == 3


def test_a_host_url_and_an_openai_base_url(server: Server) -> None:
    for url in (f"{server.url}/studio", f"{server.url}/v1/", f"{server.url}/"):
        assert run("--url", url, "--task", "anomaly", "--requests", "2").exit_code == 0


def test_prompts_and_headers_reach_the_server(server: Server) -> None:
    options = [
        "--prompt",
        "Once",
        "--header",
        "Authorization: Bearer key",
        "--warmup",
        "0",
        "--requests",
        "1",
    ]
    assert run("--url", server.url, *options, "--no-stream").exit_code == 0
    assert server.bodies[0]["prompt"] == "Once"
    assert server.bodies[0]["stream"] is False
    assert server.headers[0]["authorization"] == "Bearer key"


def test_a_service_level_that_is_met_and_one_that_is_missed(server: Server) -> None:
    server.delay = 0.05
    options = ["--url", server.url, "--task", "anomaly", "--requests", "6", "--goodput"]
    met = run(*options, "e2e:5000")
    assert met.exit_code == 0
    assert "Passed: 100.0% of requests had e2el under 5000 ms" in " ".join(met.output.split())
    missed = run(*options, "e2e:20")
    assert missed.exit_code == 1
    assert "Missed: 0.0%" in missed.output
    assert run(*options, "e2e:20", "--attain", "0").exit_code == 0


def test_nothing_answered_is_a_failure(server: Server) -> None:
    async def full(body: dict[str, Any]) -> Response:
        return refusal(429, "queue_full")

    server.handler = full
    result = run("--url", server.url, "--requests", "5", "--warmup", "0")
    assert result.exit_code == 1
    assert "429 queue_full" in result.output
    assert "No request was answered." in result.output
    assert run("--url", server.url, "--requests", "5").exit_code == 1


def test_no_server_is_one_sentence(closed_port: str) -> None:
    result = run("--url", closed_port)
    assert result.exit_code == 1
    assert "No server answers" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--rate", "5", "--concurrency", "5"],
            "Choose --rate (open loop) or --concurrency (closed loop), not both.",
        ),
        (["--rate", "0"], "--rate must be a positive number, not 0."),
        (["--rate", "nan"], "--rate must be a positive number, not nan."),
        (["--concurrency", "-1"], "--concurrency must be a positive number, not -1."),
        (["--requests", "0"], "--requests must be a positive number"),
        (["--duration", "inf"], "--duration must be a positive number"),
        (["--timeout", "0"], "--timeout must be a positive number"),
        (["--url", "localhost:8000"], "--url must look like http://127.0.0.1:8000"),
        (["--goodput", "x:1"], "'x:1' bounds nothing known"),
        (["--goodput", "ttft:1", "--task", "image"], "only where text is streamed"),
        (["--goodput", "tpot:1", "--no-stream"], "only where text is streamed"),
        (["--header", "nonsense"], "--header must look like 'Name: value'"),
        (["--header", "a: b\r\nc: d"], "--header must look like 'Name: value'"),
        (["--json", "/nowhere/at/all.json"], "--json names a folder that does not exist: /nowhere/at"),
        (["--task", "video"], "--task"),
    ],
)
def test_bad_options_are_one_sentence_and_status_2(options: list[str], sentence: str) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_ctrl_c_reports_what_was_measured(server: Server, tmp_path: Path) -> None:
    server.delay = 0.02
    target = tmp_path / "figures.json"
    code = "import typer; from service.commands.loadtest import loadtest; typer.run(loadtest)"
    options = [
        "--url",
        server.url,
        "--task",
        "anomaly",
        "--duration",
        "60",
        "--warmup",
        "0",
        "--json",
        str(target),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", code, *options], stdout=subprocess.PIPE, text=True
    ) as process:
        server.wait_for(30)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    figures = json.loads(target.read_text())
    assert figures["interrupted"] is True
    assert figures["completed"] >= 20
    assert figures["error_counts"] == {"interrupted": 8}
    assert "answered" in output
    assert "Traceback" not in output
