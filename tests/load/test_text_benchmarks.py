"""The text benchmarks' own parts, without their clock and without peers."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from deployments.config import load
from deployments.studio import Studio
from model_store.manifest import Manifest
from tests import packages
from tests.load import text_alone, text_costs, text_http, text_peers
from tests.load.connection import AnswerError
from tests.load.peers import llama, prepare, worker
from tests.load.text_runs import Case, Rates, judged, medians, opened, prompt, rates, report, request, timed

MODEL = "tiny-attention"
# What takes the part of a peer: it answers every case with two tokens for each stream, one second apart.
PEER = """
import json, sys
for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps({"came": [[1.0, 2.0]] * case["streams"]}), flush=True)
"""


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    packages.text(tmp_path, name=MODEL, attention=True, context=256)
    with opened(tmp_path, [MODEL], slots=4) as (studio, _):
        yield studio


def test_rates_count_what_came_after_the_last_first_token() -> None:
    found = rates([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0]], began=0.0)
    assert found.decode == pytest.approx(4 / 2)
    assert found.whole == pytest.approx(7 / 4)
    assert found.first == pytest.approx(1.5)


def test_rates_of_single_tokens_have_no_later_ones() -> None:
    assert rates([[2.0], [2.0]]) == Rates(decode=1.0, whole=1.0, first=2.0)


def test_medians_are_taken_figure_by_figure() -> None:
    assert medians([Rates(1, 9, 3), Rates(2, 8, 1), Rates(3, 7, 2)]) == Rates(2, 8, 2)


def test_prompts_differ_by_seed_alone() -> None:
    assert prompt(16, 3) == prompt(16, 3)
    assert prompt(16, 3) != prompt(16, 4)


async def test_a_request_gives_exactly_its_tokens_with_rising_times(studio: Studio) -> None:
    found = await timed(studio, request(MODEL, (97, 98), 5, temperature=0.0))
    assert found.text == "cdefg"
    assert len(found.came) == len(found.tokens) == 5
    assert found.first > 0
    assert all(gap >= 0 for gap in found.gaps)


def test_a_figure_is_marked_by_its_aim() -> None:
    assert judged(1.3, 1.2) == "[green]1.30[/]"
    assert judged(1.1, 1.2) == "[red]1.10[/]"
    assert judged(0.1, 0.2, least=False) == "[green]0.10[/]"
    assert judged(0.1, None) == "0.10"


def test_llamas_bench_is_read() -> None:
    row = {"pl": 8, "pp": 32, "tg": 16, "t_pp": 0.5, "t_tg": 0.25, "t": 0.75}
    assert llama.parse(f"\n{json.dumps(row)}\n") == [Rates(decode=512.0, whole=128 / 0.75, first=0.5)]


def test_a_worker_is_asked_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "peer.py").write_text(PEER)
    with worker.started([sys.executable, str(tmp_path / "peer.py")]) as peer:
        assert peer.run(Case(2, 8)) == Rates(decode=2.0, whole=2.0, first=1.0)
        assert peer.run(Case(4, 8)).decode == 4.0


def test_a_worker_that_ends_is_named() -> None:
    with (
        worker.started([sys.executable, "-c", "raise SystemExit(3)"]) as peer,
        pytest.raises((worker.PeerFailedError, BrokenPipeError)),
    ):
        peer.run(Case(1, 8))


def test_peers_that_are_not_there_take_no_part(tmp_path: Path) -> None:
    assert not any(prepare.can_work(tmp_path, name, "fp32") for name in prepare.WORKERS)
    with ExitStack() as stack:
        contest = text_peers.Contest(tmp_path, "fp32", [text_peers.OURS, "llama.cpp", "genai"], stack)
        assert contest.engines == set()


def test_ours_is_compared_at_the_same_case() -> None:
    case = Case(8, 32)
    found = {
        ("fp32", text_peers.OURS, case): [Rates(240, 200, 0.1), Rates(120, 100, 0.2), Rates(250, 200, 0.1)],
        ("fp32", "llama.cpp", case): [Rates(100, 100, 0.1), Rates(50, 50, 0.2), Rates(50, 50, 0.2)],
    }
    ours, theirs = text_peers.compared(found)
    assert (ours.ours, theirs.ours, theirs.ours_whole, theirs.aim) == (1.0, 2.4, 2.0, 1.2)
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(text_peers.show([ours, theirs]))
    assert "2.40" in console.export_text()


def test_a_report_keeps_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    report([], [Rates(1, 2, 3)], file)
    assert json.loads(file.read_text())["lines"] == [{"decode": 1, "whole": 2, "first": 3}]
    assert not capsys.readouterr().out.strip()


async def test_texts_are_the_same_alone_and_among_neighbours(studio: Studio) -> None:
    asked = [text_alone.drawn(MODEL, seed, packages.VOCABULARY) for seed in range(12)]
    found = await text_alone.compare(studio, asked, 4)
    assert (found.same, found.different) == (12, [])


def test_the_memory_of_a_slot_is_that_of_its_state(tmp_path: Path) -> None:
    folder = packages.text(tmp_path, name=MODEL, attention=True, context=256)
    manifest = Manifest.model_validate_json((folder / "model.json").read_bytes())
    assert text_costs.row_bytes(manifest) == 2 * 8 * 4 * text_costs.CONTEXT


def test_the_hosts_file_has_the_model_alone(tmp_path: Path) -> None:
    [host] = load(text_http.hosts_file(tmp_path, tmp_path / "store", MODEL, 16)).hosts
    assert (host.name, host.models, host.threads, host.slots) == ("studio", (MODEL,), 2, 16)


class Events(BaseHTTPRequestHandler):
    """Answers each completion with two events, in chunks."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        fields = json.loads(self.rfile.read(length))
        self.send_response(200 if fields["model"] == MODEL else 404)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in (b"data: {}\n\n", b"data: [DONE]\n\n"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = fields["model"] != MODEL

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Events) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_connection_reads_answer_after_answer(address: str) -> None:
    connection = text_http.Stream(address, MODEL, 4)
    speed = await text_http.rate([connection.ask], tokens=4, answers=3, seed=0)
    connection.close()
    assert speed > 0


async def test_an_answer_that_is_no_stream_is_an_error(address: str) -> None:
    connection = text_http.Stream(address, "unknown", 4)
    with pytest.raises(AnswerError, match="404"):
        await connection.ask((1, 2))
    connection.close()
