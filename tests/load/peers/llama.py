"""llama.cpp by its own `llama-batched-bench`: one case in one run."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.load.text_runs import Case, Rates

THREADS = 2


def run(bench: Path, gguf: Path, case: Case) -> Rates:
    """One run of a case. The bench samples nothing, so a sampled case is run as a greedy one."""
    options: dict[str, Any] = {
        "-m": gguf, "-c": case.streams * (case.prompt + case.tokens), "-npp": case.prompt, "-ntg": case.tokens,
        "-npl": case.streams, "-t": THREADS, "-tb": THREADS, "--output-format": "jsonl",
    }  # fmt: skip
    command = [str(bench), *(str(part) for option in options.items() for part in option)]
    [found] = parse(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def parse(output: str) -> list[Rates]:
    """What the bench printed: `t_pp` and `t_tg` are the seconds of all prompts and of all tokens after them."""
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    totals = [(row, row["pl"] * row["tg"]) for row in rows]
    return [Rates(total / row["t_tg"], total / row["t"], row["t_pp"]) for row, total in totals]
