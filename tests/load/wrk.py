"""One run of wrk, as numbers. wrk is a Debian package (`apt-get install wrk`); nothing here replaces it."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# wrk's own table is made for reading; its hook at the end gives the same figures exactly.
SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {{"requests": %d, "seconds": %.6f, "errors": %d, "p50_ms": %.4f, "p99_ms": %.4f, "mean_ms": %.4f}}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.mean / 1e3))
end
"""


class WrkMissingError(Exception):
    """wrk is not installed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What wrk saw of one server."""

    requests_per_second: float
    errors: int
    p50_ms: float
    p99_ms: float
    mean_ms: float


def check() -> None:
    """Raise WrkMissingError with advice unless wrk can be run."""
    if shutil.which("wrk") is None:
        raise WrkMissingError(
            "This benchmark needs wrk: `apt-get install wrk`, or https://github.com/wg/wrk."
        )


def post(url: str, body: Path, *, connections: int, seconds: int) -> Measured:
    """POST the body as often as the server answers, over so many connections of one thread."""
    script = body.with_suffix(".lua")
    script.write_text(SCRIPT.format(body=body), encoding="utf-8")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    return parse(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parse(output: str) -> Measured:
    """Read the line that the script printed."""
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT "))
    fields = json.loads(line.removeprefix("RESULT "))
    return Measured(
        fields["requests"] / fields["seconds"],
        fields["errors"],
        fields["p50_ms"],
        fields["p99_ms"],
        fields["mean_ms"],
    )
