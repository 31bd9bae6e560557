import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model

from model_store.export.cases import check_cases, only
from model_store.export.sampled import unsampled
from model_store.session import open_graph
from model_store.zoo import shakespeare_lstm as lstm
from model_store.zoo import text
from tests.model_store.zoo import plays
from tests.model_store.zoo.recipes import Log, published

TINY = lstm.Config(embedding=8, layers=2, hidden=24, dropout=0.0)
QUICK = lstm.Recipe(steps=40, streams=8, window=16, rate=2e-2)


@pytest.fixture
def step() -> lstm.Step:
    torch.manual_seed(0)
    return lstm.Step(TINY).eval()


@torch.no_grad()
def run(step: lstm.Step, ids: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits at every position of ids [batch, time], and the state."""
    select = torch.arange(ids.shape[1]).expand_as(ids)
    result: tuple[torch.Tensor, ...] = step(ids, select, h, c)
    return result


def empty(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(batch, 2, 24), torch.zeros(batch, 2, 24)


def test_it_is_as_small_as_it_says() -> None:
    assert sum(each.numel() for each in lstm.step_module().parameters()) < 1_000_000


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_the_state_carries_what_was_read(step: lstm.Step, cut: int) -> None:
    ids = torch.randint(256, (3, 10))
    whole = run(step, ids, *empty(3))
    first = run(step, ids[:, :cut], *empty(3))
    second = run(step, ids[:, cut:], *first[-2:])
    torch.testing.assert_close(torch.cat((first[0], second[0]), 1), whole[0])
    for state, expected in zip(second[-2:], whole[-2:], strict=True):
        torch.testing.assert_close(state, expected)


def test_a_row_does_not_depend_on_its_neighbours(step: lstm.Step) -> None:
    ids = torch.randint(256, (4, 1))
    h, c = torch.randn(4, 2, 24), torch.randn(4, 2, 24)
    together = run(step, ids, h, c)
    for row in range(4):
        alone = run(step, ids[row : row + 1], h[row : row + 1], c[row : row + 1])
        for one, all_rows in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_rows[row])


def test_training_reports_and_learns(tmp_path: Path) -> None:
    log = Log()
    lstm.train(plays.folder(tmp_path), log, QUICK, TINY)
    assert [step for step, _, _ in log.seen] == list(range(1, 41))
    losses = [figures["loss"] for _, _, figures in log.seen]
    assert losses[0] == pytest.approx(math.log(256), abs=0.3)
    assert losses[-1] < 4
    assert 0 < log.seen[-1][2]["nats_per_char"] < 4


def test_streams_read_the_text_in_order_and_start_anew_elsewhere() -> None:
    tokens = torch.arange(200) % 256
    seen: list[torch.Tensor] = []

    class Spy(lstm.CharacterLSTM):
        def forward(
            self, ids: torch.Tensor, h: torch.Tensor, c: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            seen.append(ids)
            return super().forward(ids, h, c)

    recipe = lstm.Recipe(streams=4, window=10)
    streams = lstm.Streams(tokens, Spy(TINY), recipe)
    for step in range(10):  # two passes of five windows
        streams.loss(step)
    firsts = [ids[0, 0].item() for ids in seen]
    assert [(b - a) % 200 for a, b in pairwise(firsts[:5])] == [10] * 4
    assert (firsts[5] - firsts[4]) % 200 != 10
    assert sorted((seen[0][:, 0] - seen[0][0, 0]) % 200) == [0, 50, 100, 150]


def test_the_held_out_figure_is_of_one_reading(step: lstm.Step) -> None:
    written = "Now is the winter of our discontent"
    ids = torch.tensor([list(written.encode())])
    with torch.no_grad():
        scores = step.model(ids[:, :-1], *step.model.empty_state(1))[0].log_softmax(-1)[0]
    nats = math.log(256) - float(scores.gather(1, ids[0, 1:, None]).sum())
    assert lstm.held_out_nats(step.model, written) == pytest.approx(nats / len(written), rel=1e-5)


def test_cases_fit_the_graph_and_move_every_dimension(tmp_path: Path) -> None:
    data = plays.folder(tmp_path / "data")
    draft = lstm.draft(lstm.step_module().eval(), data, tmp_path, Log())
    own = unsampled(draft.graphs["step"])
    check_cases(own, [only(own.inputs, case) for case in lstm.cases()])


def test_a_draft_describes_what_was_trained(tmp_path: Path) -> None:
    data, log = plays.folder(tmp_path / "data"), Log()
    trained = lstm.train(data, log, QUICK, TINY)
    draft = lstm.draft(trained, data, tmp_path, log, QUICK)
    assert draft.text is not None
    assert not draft.text.attention
    assert [state.shape for state in draft.text.state] == [(2, 24), (2, 24)]
    assert draft.files["tokenizer.json"] == text.byte_tokenizer().to_str().encode()
    assert draft.quality["nats_per_char"].value == pytest.approx(log.seen[-1][2]["nats_per_char"], abs=1e-4)
    graph = draft.graphs["step"]
    assert graph.weights is not None
    loaded = lstm.Step(TINY)
    load_model(loaded, graph.weights)
    assert torch.equal(loaded.model.head.weight, trained.model.head.weight)


def test_what_is_trained_can_be_published_and_opened(tmp_path: Path) -> None:
    data, log = plays.folder(tmp_path / "data"), Log()
    recipe = lstm.Recipe(steps=1, streams=2, window=8)
    draft = lstm.draft(lstm.train(data, log, recipe), data, tmp_path, log, recipe)
    package = published(draft, tmp_path)
    open_graph(package, "step")  # replays the golden pair
    assert package.manifest.provenance.steps == 1
