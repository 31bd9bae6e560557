"""The image benchmarks' own parts, without their clock and without peers."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from deployments.metrics import Metrics
from deployments.studio import Studio
from model_store.errors import PackageNotFound
from model_store.package import Package
from tests.flows import flow
from tests.load import image_alone, image_costs, image_http, image_mixed, image_peers, image_runs
from tests.load.connection import AnswerError, Connection
from tests.load.image_peers import OURS, RAY, Case, Found
from tests.load.peers import diffusers_server, server
from tests.load.peers.pictures import Pictures

# What takes the part of a peer: it answers on its port, and says where it was told to look.
PEER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer).serve_forever()
"""


def printed(*tables: Table) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    for each in tables:
        console.print(each)
    return console.export_text()


@pytest.fixture(params=["class", "text"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Package:
    text = request.param == "text"
    return image_runs.package_at(flow(tmp_path, text=text, decoded=text))


@pytest.fixture
def opened(package: Package) -> Iterator[tuple[Studio, Metrics]]:
    with image_runs.studio_of(package, slots=8, threads=1) as both:
        yield both


# -- requests and the bare graph -------------------------------------------------------------------------------------------


def test_a_package_is_found_by_its_folder(tmp_path: Path) -> None:
    folder = flow(tmp_path, name="mine", version="3")
    found = image_runs.package_at(folder).manifest
    assert (found.name, found.version) == ("mine", "3")


def test_a_folder_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageNotFound):
        image_runs.package_at(tmp_path / "none" / "1")


def test_a_mix_has_all_steps_and_guides_every_other_request(package: Package) -> None:
    asked = image_runs.mixed(package.manifest, 5)
    assert tuple(each.steps for each in asked) == image_runs.MIXED_STEPS
    assert [image_runs.rows_of(package.manifest, each) for each in asked] == [1, 2] * 4
    assert len({each.prompt for each in asked}) > 1


def test_a_mix_asks_for_no_more_than_the_model_takes(tmp_path: Path) -> None:
    limits = {"most_steps": 16, "most_guidance": 1.0}
    held = image_runs.package_at(flow(tmp_path, denoise=limits)).manifest
    asked = image_runs.mixed(held, 0)
    assert max(each.steps or 0 for each in asked) == 16
    assert {image_runs.rows_of(held, each) for each in asked} == {1}


def test_the_bare_graph_runs_any_number_of_rows(package: Package) -> None:
    graph = image_runs.Bare(package, threads=1)
    assert all(graph.seconds(rows, 2) > 0 for rows in (1, 5))


# -- each benchmark's measurement ------------------------------------------------------------------------------------------


async def test_the_mix_counts_every_evaluation(package: Package, opened: tuple[Studio, Metrics]) -> None:
    studio, metrics = opened
    graph = image_runs.Bare(package, threads=1)
    line = await image_mixed.measure(studio, metrics, graph, package.manifest, rounds=1)
    steps = image_runs.MIXED_STEPS
    assert line.evaluations == sum(steps) + sum(steps[1::2])
    assert line.rows == 12
    assert line.mean_batch == pytest.approx(line.evaluations / 32, rel=0.5)
    assert line.together > line.in_graph > 0
    assert line.at_best == pytest.approx(line.over * line.faster)
    sizes = image_mixed.scaling(graph, 1)
    assert [each.batch for each in sizes] == list(image_mixed.BATCHES)
    assert sizes[0].share == 1
    assert "times faster" in printed(*image_mixed.show("tiny-flow", line, sizes))


async def test_pictures_are_the_same_alone_and_among_neighbours(
    package: Package, opened: tuple[Studio, Metrics]
) -> None:
    asked = [image_alone.drawn(package.manifest, seed, most_steps=6) for seed in range(12)]
    assert {each.format for each in asked} == {"png", "jpeg", "webp"}
    found = await image_alone.compare(opened[0], asked, 4)
    assert (found.same, found.different) == (12, [])
    assert found.files == sum(each.n for each in asked)


async def test_a_file_that_differs_is_found(
    package: Package, opened: tuple[Studio, Metrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([[b"a"], [b"b"], [b"a"], [b"c"]])

    async def files(*_: object) -> list[bytes]:
        return next(answers)

    monkeypatch.setattr(image_alone, "files", files)
    asked = [image_alone.drawn(package.manifest, seed) for seed in range(2)]
    assert (await image_alone.compare(opened[0], asked, 2)).different == [1]


async def test_previews_are_paid_for_outside_the_graph(
    package: Package, opened: tuple[Studio, Metrics]
) -> None:
    studio, metrics = opened
    lines = await image_costs.measure(studio, metrics, package.manifest, streams=2, steps=6, rounds=1)
    assert [each.previews for each in lines] == [0, 3, 5]
    assert lines[0].more == 0
    assert all(min(each.graph_ms, each.around_ms, each.gap_ms) > 0 for each in lines)
    files = [image_costs.Encoding("noise", 30.0, 3000.0)]
    assert "3,000" in printed(*image_costs.show("tiny-flow", lines, files))


def test_pictures_to_encode_are_large_and_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_costs, "SIDE", 64)
    made = image_costs.pictures()
    assert {each.shape for each in made.values()} == {(3, 64, 64)}
    assert all(each.min() >= 0 and each.max() <= 1 for each in made.values())
    sizes = {each.picture: each.kilobytes for each in image_costs.encodings(1)}
    assert sizes["noise"] > sizes["photograph"] > sizes["flat"]


async def test_short_requests_arrive_among_long_ones_on_every_server(
    package: Package, opened: tuple[Studio, Metrics]
) -> None:
    ask = image_http.in_process(opened[0], package.manifest)
    options = image_http.options_of(["--connections", "2", "--steps", "2", "--answers", "1", "--rounds", "1"])
    lines, arrivals = await image_http.measure({"in process": [ask] * 3, "direct": [ask] * 3}, options)
    assert [each.server for each in lines] == ["in process", "direct"]
    assert (lines[0].share, lines[0].connections) == (1, 2)
    assert all(each.among > 0 and each.share > 0 for each in arrivals)
    assert "direct" in printed(*image_http.show("tiny-flow", lines, arrivals))


def test_a_late_answer_is_compared_with_the_time_alone_and_one_step() -> None:
    found = image_http.late("direct", [(1.0, 1.0, 3.0), (2.0, 2.0, 12.0), (1.0, 1.0, 2.0)])
    assert (found.alone, found.step, found.among, found.share) == (1.0, 1.0, 3.0, 1.5)


# -- connections -----------------------------------------------------------------------------------------------------------


class Images(BaseHTTPRequestHandler):
    """Answers with what was asked for; one model's answers do not say their length."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        fields = json.loads(body)
        self.send_response(200 if "prompt" in fields else 400)
        if fields.get("model") != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = "prompt" not in fields

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Images) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


async def test_a_connection_reads_whole_bodies_one_after_the_other(address: str) -> None:
    with closing(Connection(address)) as connection:
        for number in range(3):
            fields = {"prompt": "a" * 10_000 * number}
            assert json.loads(await connection.post(fields)) == fields


async def test_an_answer_without_a_length_is_an_error(address: str) -> None:
    with closing(Connection(address)) as connection, pytest.raises(AnswerError, match="length"):
        await connection.post({"model": "endless", "prompt": ""})


async def test_a_refusal_is_an_error(address: str) -> None:
    with closing(Connection(address)) as connection, pytest.raises(AnswerError, match="400"):
        await connection.post({})


async def test_a_picture_is_asked_for_on_the_wire_as_in_process(package: Package, address: str) -> None:
    with closing(Connection(address)) as connection:
        asked = json.loads(await image_http.over_http(connection, package.manifest)(7, 4))  # type: ignore[arg-type]
    assert asked == {"model": "tiny-flow", "prompt": asked["prompt"], "seed": 7, "steps": 4}
    assert asked["prompt"] == image_runs.draw(package.manifest, 7).prompt


# -- peers -----------------------------------------------------------------------------------------------------------------


def test_mixed_cases_have_the_same_requests_on_every_server() -> None:
    mixed, alike = Case("mixed", 2, 8, 4), Case("alike", 2, 8, 4)
    assert [mixed.fields(number, 0)["steps"] for number in range(8)] == list(image_peers.MIXED)
    assert {alike.fields(number, 0)["steps"] for number in range(8)} == {8}
    assert mixed.fields(3, 2)["seed"] == 2003


def test_a_run_of_a_case_times_every_answer(address: str) -> None:
    found = image_runs.run(image_peers.measure(address, Case("mixed", 1, 8, 3), 0))
    assert found.rate > 0
    assert found.worst >= found.middle > 0


def test_ours_is_compared_with_a_peer_in_the_same_round() -> None:
    case = Case("alike", 8, 8, 2)
    seen = {
        (OURS, case): [Found(4, 1.0, 2.0), Found(2, 2.0, 4.0), Found(4, 1.0, 2.0)],
        (RAY, case): [Found(2, 2.0, 2.0), Found(1, 4.0, 4.0), Found(1, 2.0, 2.0)],
    }
    ours, theirs = image_peers.compared(seen)
    assert (ours.ours, theirs.ours, theirs.ours_latency) == (1.0, 2.0, 0.5)
    text = printed(image_peers.show([ours, theirs], 0.02))
    assert "wait 0.02 s" in text
    assert "2.00" in text


def test_a_server_without_ours_has_nothing_to_compare_with() -> None:
    case = Case("mixed", 1, 8, 2)
    [line] = image_peers.compared({(RAY, case): [Found(2, 2.0, 2.0)]})
    assert (line.images_per_second, line.ours) == (2, 0.0)


async def test_the_afternoons_server_answers_as_openais_api() -> None:
    class Painted(Pictures):
        def __init__(self) -> None:
            pass

        def draw(self, asked: object) -> list[bytes]:
            return [json.dumps(asked).encode()]

    transport = httpx.ASGITransport(diffusers_server.create(Painted()))
    async with httpx.AsyncClient(transport=transport, base_url="http://peer") as client:
        answer = await client.post("/v1/images/generations", json={"steps": 4})
    [picture] = answer.json()["data"]
    assert json.loads(base64.b64decode(picture["b64_json"])) == [{"steps": 4}]


def test_a_peer_is_started_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atelier_peer.py").write_text(PEER)
    monkeypatch.syspath_prepend(tmp_path)
    with server.serving("atelier_peer", "folder") as url:
        assert httpx.get(url).text == "folder"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_peer_that_ends_is_named() -> None:
    with (
        pytest.raises(server.PeerFailedError, match="No module named no_such"),
        server.serving("no_such_module", "x"),
    ):
        raise AssertionError("it answers")
