import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model

from model_store.session import open_graph
from model_store.zoo import shakespeare_gpt as gpt
from model_store.zoo import text
from model_store.zoo.training import Checkpoint, Rates
from model_store.zoo.transformer import Config, Step
from tests.model_store.zoo import plays
from tests.model_store.zoo.recipes import Log, published

TINY = Config(vocabulary=300, context=32, layers=2, width=32, heads=4, kv_heads=2, hidden=48, dropout=0.0)
QUICK = gpt.Recipe(steps=40, tokens=256, short=16, rates=Rates(matrix=2e-2, other=1e-2))


def test_it_is_as_small_as_it_says() -> None:
    parameters = sum(each.numel() for each in gpt.step_module().parameters())
    assert 2_500_000 < parameters < 3_300_000


def test_training_reports_and_learns(tmp_path: Path) -> None:
    log = Log()
    trained = gpt.train(plays.folder(tmp_path), log, QUICK, TINY)
    assert [step for step, _, _ in log.seen] == list(range(1, 41))
    losses = [figures["loss"] for _, _, figures in log.seen]
    assert losses[0] == pytest.approx(math.log(300), abs=0.3)
    assert losses[-1] < losses[0] - 1
    assert 0 < log.seen[-1][2]["nats_per_char"] < 4
    assert not trained.step.training


def test_training_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    data, checkpoint = plays.folder(tmp_path / "data"), Checkpoint(tmp_path / "state.pt")
    whole = gpt.train(data, Log(), QUICK, TINY, checkpoint)
    log = Log()
    again = gpt.train(data, log, QUICK, TINY, checkpoint)
    assert log.seen == []
    assert torch.equal(whole.step.model.embedding.weight, again.step.model.embedding.weight)


def test_windows_are_short_first_and_the_whole_context_later() -> None:
    corpus = plays.text()
    batches = gpt.Windows(text.merged_tokenizer(corpus, 300), corpus, QUICK, TINY.context)
    assert batches(0)[0].shape == (16, 16)
    assert batches(29)[0].shape == (16, 16)
    assert batches(30)[0].shape == (8, 32)


def test_windows_skip_merges_at_first_and_none_at_the_end() -> None:
    corpus = plays.text()
    tokenizer = text.merged_tokenizer(corpus, 300)
    canonical = {tuple(window) for window in text.encode(tokenizer, corpus).unfold(0, 17, 1).tolist()}

    def share(step: int) -> float:
        ids, following = gpt.Windows(tokenizer, corpus, gpt.Recipe(steps=100, short=16), 16)(step)
        rows = torch.cat((ids, following[:, -1:]), 1).tolist()
        return sum(tuple(row) in canonical for row in rows) / len(rows)

    assert share(0) < 0.8
    assert share(90) == 1


def test_a_draft_describes_what_was_trained(tmp_path: Path) -> None:
    data, log = plays.folder(tmp_path / "data"), Log()
    trained = gpt.train(data, log, QUICK, TINY)
    draft = gpt.draft(trained, data, tmp_path, log, QUICK)
    assert draft.text is not None
    assert (draft.text.vocabulary, draft.text.context, draft.text.attention) == (300, 32, True)
    assert draft.provenance.steps == 40
    measured, reported = draft.quality["nats_per_char"].value, log.seen[-1][2]["nats_per_char"]
    assert measured == pytest.approx(reported, abs=1e-4)
    graph = draft.graphs["step"]
    assert graph.weights is not None
    loaded = Step(TINY)
    load_model(loaded, graph.weights)
    assert torch.equal(loaded.model.norm.weight, trained.step.model.norm.weight)


def test_what_is_trained_can_be_published_and_opened(tmp_path: Path) -> None:
    data, log = plays.folder(tmp_path / "data"), Log()
    recipe = gpt.Recipe(steps=2, tokens=64, short=32, short_share=1.0)
    draft = gpt.draft(gpt.train(data, log, recipe), data, tmp_path, log, recipe)
    package = published(draft, tmp_path)
    open_graph(package, "step")  # replays the golden pair
    assert package.manifest.text is not None
    assert all(state.in_place for state in package.manifest.text.state)
