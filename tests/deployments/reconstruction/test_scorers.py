"""Models that score or decode without reconstructing: what they can do follows what graphs they have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest
from deployments.messages import (
    Decode,
    Encode,
    Interpolate,
    Item,
    Reconstruct,
    Score,
    TensorItem,
)
from deployments.oneshot import Task
from deployments.reconstruction.calibrated import Calibrated
from deployments.reconstruction.calibrations import Calibrations
from deployments.reconstruction.scores import Scores
from deployments.reconstruction.tasks import Autoencoding
from model_store.manifest import Graph, Manifest
from model_store.store import Store
from tests import packages
from tests.deployments.conftest import OpenStudio

DARK, BRIGHT = TensorItem([0.25] * 64), TensorItem([0.75] * 64)


def manifest(store: Path, name: str, *graphs: str, **changes: Any) -> Manifest:
    found = Store(str(store)).open(name).manifest
    kept: dict[str, Graph] = {key: found.graphs[key] for key in graphs or found.graphs}
    return found.model_copy(update={"graphs": kept, **changes})


def bright() -> dict[str, Calibrated]:
    return {"bright": Calibrated(np.linspace(-0.5, 0, 11, dtype=np.float32), -0.1)}


def scores(of: Manifest, own: dict[str, Calibrated] | None = None) -> Scores:
    return Scores(of, Autoencoding(of), Calibrations(of, own or bright(), None))


def tasks(by: Scores, request: Score) -> list[Task]:
    return by.prepare(request, by.choose(request), by.auto)


def refused(act: Any, request: Any) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        act(request)
    return error.value


async def test_items_are_scored_without_being_redrawn(open_tiny: OpenStudio) -> None:
    opened = open_tiny("tiny-score")
    reply = await opened.studio.call(Score("tiny-score", (DARK, BRIGHT)))
    normal, anomaly = reply.outputs
    assert (normal.score, normal.is_anomaly, normal.threshold) == (-0.25, False, -0.1)
    assert (anomaly.score, anomaly.is_anomaly) == (0.25, True)
    assert normal.p_value == pytest.approx(52 / 102)
    assert anomaly.p_value == pytest.approx(1 / 102)
    assert 0 < (normal.normalized or 0) < 0.5 < (anomaly.normalized or 0) < 1
    assert reply.calibration == "tiny-score:1"
    assert opened.value("anomaly_score_count", model="tiny-score", score="bright") == 2
    assert opened.value("batch_rows_sum", model="tiny-score", graph="score") == 2


@pytest.mark.parametrize(
    "request_",
    [
        Reconstruct("tiny-score", (DARK,)),
        Encode("tiny-score", (DARK,)),
        Decode("tiny-score", ([0.5],)),
        Interpolate("tiny-score", DARK, BRIGHT),
        Interpolate("tiny-score", [0.5], [0.5]),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_it_can_score_and_nothing_else(tiny: Path, open_tiny: OpenStudio, request_: Any) -> None:
    with pytest.raises(BadRequest, match="it can score") as error:
        await open_tiny("tiny-score").studio.call(request_)
    assert error.value.code == "task_not_supported"
    auto = Autoencoding(manifest(tiny, "tiny-score"))
    acts = {Reconstruct: auto.reconstruct, Encode: auto.encode, Decode: auto.decode, Interpolate: auto.ends}
    error_ = refused(acts[type(request_)], request_)
    assert (error_.code, error_.param) == ("task_not_supported", "model")


def test_a_map_needs_a_graph_that_makes_one(tiny: Path, tmp_path: Path) -> None:
    request = Score("m", (DARK,), map=True)
    plain = scores(manifest(tiny, "tiny-score"))
    assert refused(lambda r: tasks(plain, r), request).param == "return"
    packages.scorer(tmp_path, mapped=True)
    (task,) = tasks(scores(manifest(tmp_path, "tiny-score")), request)
    assert (task.graph, task.outputs) == ("score", ("score.bright", "error_map"))


def test_no_seed_where_nothing_is_drawn(tiny: Path) -> None:
    by = scores(manifest(tiny, "tiny-score"))
    assert refused(lambda r: tasks(by, r), Score("m", (DARK,), seed=1)).param == "seed"


def both(tiny: Path, *kept_scores: str) -> Manifest:
    """An autoencoder with a graph of its own for scores, of which `reconstruct` keeps some."""
    scored, redrawn = manifest(tiny, "tiny-score"), manifest(tiny, "tiny-ae")
    graph = redrawn.graphs["reconstruct"]
    kept = tuple(
        each for each in graph.outputs if not each.role.startswith("score.") or each.role in kept_scores
    )
    graphs = redrawn.graphs | scored.graphs | {"reconstruct": graph.model_copy(update={"outputs": kept})}
    return redrawn.model_copy(update={"graphs": graphs})


def test_each_request_runs_the_graph_that_computes_what_it_wants(tiny: Path) -> None:
    items: tuple[Item, ...] = (DARK,)
    of = both(tiny, "score.l1")
    auto, by = Autoencoding(of), scores(of, bright() | {"l1": bright()["bright"]})
    assert tasks(by, Score("m", items, score="bright"))[0].graph == "score"
    assert tasks(by, Score("m", items))[0].graph == "reconstruct"
    assert auto.encode(Encode("m", items))[0].graph == "reconstruct"
    assert auto.reconstruct(Reconstruct("m", items))[0].outputs == ("reconstruction", "score.l1")


def test_a_reconstruction_has_no_error_where_another_graph_scores(tiny: Path) -> None:
    (task,) = Autoencoding(both(tiny)).reconstruct(Reconstruct("m", (DARK,)))
    assert task.outputs == ("reconstruction",)


def test_a_decoder_alone_decodes(tiny: Path) -> None:
    auto = Autoencoding(manifest(tiny, "tiny-ae", "decode", scoring=None))
    assert not auto.reads
    assert auto.items.shape == (1, 8, 8)
    (task,) = auto.decode(Decode("m", ([0.5] * 64,)))
    assert (task.graph, task.feeds["latent"].shape) == ("decode", (64,))
    assert refused(auto.encode, Encode("m", (DARK,))).code == "task_not_supported"
    assert auto.ends(Interpolate("m", [0.5] * 64, [0.5] * 64))
    assert refused(auto.ends, Interpolate("m", [0.5] * 64, DARK)).code == "task_not_supported"


def test_what_neither_reads_nor_decodes_has_no_part_in_this(tiny: Path) -> None:
    assert not Autoencoding.serves(manifest(tiny, "tiny-gan"))
    assert Autoencoding.serves(manifest(tiny, "tiny-ae", "decode"))
