"""The item benchmarks' own parts, without their clock and without peers that have to be installed."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from rich.console import Console
from rich.table import Table

from deployments.config import HostConfig
from deployments.pictures import decode
from model_store.store import Package
from tests import packages
from tests.load import item_arrivals, item_costs, item_peers, item_runs, wrk
from tests.load.item_arrivals import OURS, TIMER, Batcher
from tests.load.item_peers import DIRECT, FASTAPI, GRAPH, LITSERVE, TWO, Case, Contest, Found, Server
from tests.load.peers.scoring import Scorer, Setting


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return item_runs.package_at(packages.autoencoder(tmp_path / "store"))


def printed(made: Table) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(made)
    return console.export_text()


# -- items and the bare graph ----------------------------------------------------------------------------------------------


def test_pictures_are_shades_of_eight_bits_and_differ(package: Package) -> None:
    made = item_runs.pictures(package.manifest, 5)
    assert made.shape == (5, 1, 8, 8)
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_allclose(made * 255, (made * 255).round(), atol=1e-4)
    assert len({each.tobytes() for each in made}) == 5


def test_every_form_holds_the_same_picture(package: Package) -> None:
    [pixels] = item_runs.pictures(package.manifest, 1)
    read = {form: item_runs.item(pixels, form) for form in (*item_runs.FORMS, "flat")}
    np.testing.assert_array_equal(np.array(read["all digits"]["tensor"]["data"], np.float32), pixels)
    np.testing.assert_allclose(read["nested"]["tensor"]["data"], pixels, atol=1e-4)
    assert read["flat"]["tensor"]["data"] == np.array(read["nested"]["tensor"]["data"]).ravel().tolist()
    raw = base64.b64decode(read["base64"]["tensor"]["data"])
    np.testing.assert_array_equal(
        np.frombuffer(raw, "<f4").reshape(read["base64"]["tensor"]["shape"]), pixels
    )
    shown = decode(base64.b64decode(read["picture"]["image"]), 1, 8, 8, "image")
    np.testing.assert_allclose(shown, pixels, atol=1e-6)


def test_the_bare_graph_scores_and_is_timed(package: Package) -> None:
    graph = item_runs.Bare(package)
    pixels = item_runs.pictures(package.manifest, 3)
    wanted = np.maximum(pixels - 0.5, 0).mean(axis=(1, 2, 3))
    assert graph.score(pixels) == pytest.approx(wanted.tolist())
    assert graph.rate(3, 0.01) > 0


def test_peers_score_the_same_body_with_the_same_graph(package: Package) -> None:
    fields = json.loads(item_runs.body(package.manifest, "flat", 3))
    scorer = Scorer(package.folder, 1)
    wanted = item_runs.Bare(package).score(item_runs.pictures(package.manifest, 3))
    assert scorer.score(scorer.read(fields["input"])) == pytest.approx(wanted, abs=1e-3)


def test_peers_prefer_a_graph_that_only_scores(tmp_path: Path) -> None:
    graph = {"inputs": [{"name": "input", "shape": ["batch", 1, 8, 8]}], "file": "other.onnx"}
    scores = {**graph, "outputs": [{"name": "score", "role": "score.l1"}]}
    fields = {
        "scoring": {"default": "l1"},
        "graphs": {
            "reconstruct": {**scores, "file": "none.onnx"},
            "score": {**scores, "file": "reconstruct.onnx"},
            "encode": {**graph, "outputs": [{"name": "latent", "role": "latent"}]},
        },
    }
    made = packages.autoencoder(tmp_path / "store")
    (made / "model.json").write_text(json.dumps(fields))
    Scorer(made, 1)


# -- peers -----------------------------------------------------------------------------------------------------------------


def test_a_setting_travels_on_a_command_line() -> None:
    setting = Setting(2, 1, 0.005)
    assert Setting.of(setting.arguments) == setting


def test_answers_of_all_servers_are_read() -> None:
    assert item_peers.scores_of([0.5]) == [0.5]
    assert item_peers.scores_of({"scores": [0.5]}) == [0.5]
    assert item_peers.scores_of({"data": [{"index": 0, "score": 0.5}]}) == [0.5]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Package, list[Server]]]:
    folder = tmp_path_factory.mktemp("peers")
    package = item_runs.package_at(packages.autoencoder(folder / "store"))
    with item_peers.servers(package, folder, [FASTAPI], folder) as running:
        yield package, running


def test_a_peer_takes_part_as_it_gives_most(
    peers: tuple[Package, list[Server]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, [one, two] = peers
    assert (one.setting, two.setting) == item_peers.SETTINGS[FASTAPI]
    sent: list[int] = []

    def post(url: str, body: Path, *, connections: int, seconds: int) -> wrk.Measured:
        sent.append(len(orjson.loads(body.read_bytes())["input"]))
        return wrk.Measured(200.0 if url.startswith(two.url) else 100.0, 0, 1.0, 2.0, 1.0)

    monkeypatch.setattr(wrk, "post", post)
    contest = Contest(package, [one, two], tmp_path)
    [line, *bare] = item_peers.measure(contest, [Case(4, 2)], seconds=0, rounds=2)
    assert (line.server, line.setting, line.direct) == (FASTAPI, two.setting, None)
    assert (line.items_per_second, line.p99_ms) == (800, 2)
    assert [each.server for each in bare] == [GRAPH, TWO]
    assert sent == [4] * 4
    assert "1 x 2 threads" in printed(item_peers.show("tiny-ae", [line, *bare]))


def test_who_cannot_answer_takes_no_part(
    peers: tuple[Package, list[Server]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, [one, _] = peers
    lost = Server(LITSERVE, f"{one.url}/nowhere", None, one.peer)
    assert item_peers.best(Contest(package, [lost], tmp_path), Case(2, 1)) == []
    assert "litserve does not take 2 items: 404" in capsys.readouterr().out


def test_other_scores_are_no_answer(
    peers: tuple[Package, list[Server]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, [one, _] = peers
    contest = Contest(package, [one], tmp_path)
    assert contest.agree(one, 4) is None
    monkeypatch.setattr(item_peers, "scores_of", lambda _: [9.0])
    assert contest.agree(one, 1) == "other scores"


def test_direct_answers_are_compared_in_the_same_round() -> None:
    case = Case.of("1x16")
    seen = {
        (DIRECT, case): [Found(60, 1, 2), Found(30, 1, 2), Found(70, 1, 2)],
        (LITSERVE, case): [Found(10, 1, 2), Found(10, 1, 2), Found(10, 1, 2, errors=1)],
    }
    ours, theirs = item_peers.compared(seen, {(LITSERVE, case): Setting(wait=0.001)})
    assert (ours.direct, ours.aim, ours.setting) == (1.0, None, None)
    assert (theirs.direct, theirs.aim, theirs.errors) == (6.0, 3.0, 1)
    text = printed(item_peers.show("fashion-ae", [ours, theirs]))
    assert "6.00" in text
    assert "1 x 1 threads, 1 ms" in text


def test_who_answers_nothing_in_a_round_is_not_compared_in_it() -> None:
    case = Case(1000, 1)
    found = [Found(0.0, 0.0, 0.0, 1), Found(500.0, 1.0, 2.0)]
    seen = {(DIRECT, case): [Found(1000.0)] * 2, (LITSERVE, case): found}
    assert item_peers.compared(seen, {})[1].direct == 2.0
    assert item_peers.compared({**seen, (LITSERVE, case): found[:1]}, {})[1].direct is None


def test_cases_are_read_from_the_command_line() -> None:
    assert item_peers.options_of(["--cases", "8x2", "1x1"]).cases == [Case(8, 2), Case(1, 1)]


# -- costs -----------------------------------------------------------------------------------------------------------------


async def test_all_of_a_requests_time_is_accounted_for(package: Package) -> None:
    with item_costs.watched(package) as (studio, app):
        lines = await item_costs.measure(studio, app, package, items=4, requests=3, rounds=1)
    assert {(each.route, each.form) for each in lines} == {
        (route, form) for route in item_costs.ROUTES for form in item_runs.FORMS
    }
    for line in lines:
        parts = (line.spent.read, line.spent.model, line.spent.write)
        assert all(part > 0 for part in parts)
        assert 0 < line.share < 1
    assert all(each.answered_kilobytes > 0 for each in lines)
    assert "picture" in printed(item_costs.show("tiny-ae", 4, lines))


async def test_a_refused_request_is_no_measurement(package: Package) -> None:
    with (
        item_costs.watched(package) as (_, app),
        pytest.raises(ValueError, match="missing_required_parameter"),
    ):
        await item_costs.ask(app, "anomalies", b"{}")


# -- arrivals --------------------------------------------------------------------------------------------------------------


async def test_both_batchers_answer_all_that_arrives(package: Package) -> None:
    options = item_arrivals.options_of(["--max-batch", "4", "--wait", "0.02"])
    with item_arrivals.opened(package, options) as batchers:
        lines = await item_arrivals.measure(batchers, [0.05], batch=4, seconds=0.1, rounds=1)
    ours, timer = lines
    assert (ours.batcher, timer.batcher) == (OURS, TIMER)
    assert (ours.refused, timer.refused) == (0, 0)
    assert ours.offered == timer.offered
    assert timer.p50_seconds > ours.p50_seconds > 0
    assert "5%" in printed(item_arrivals.show("tiny-ae", lines))


async def test_a_timer_waits_unless_its_batch_is_full(package: Package) -> None:
    batcher = Batcher(package, HostConfig(max_batch=2, threads=1), 0.2)
    try:
        alone = await item_arrivals.arrive(batcher, [0.0])
        full = await item_arrivals.arrive(batcher, [0.0, 0.0])
    finally:
        batcher.studio.close()
    assert alone.p50 >= 0.2 > full.p99
    assert batcher.runs() == (3.0, 2.0)


async def test_what_does_not_fit_is_refused(package: Package) -> None:
    batcher = Batcher(package, HostConfig(max_batch=1, max_waiting=1, threads=1), 0.05)
    try:
        found = await item_arrivals.arrive(batcher, [0.0] * 20)
    finally:
        batcher.studio.close()
    assert 0 < found.refused < 1
