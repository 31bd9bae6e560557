from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.export.cases import check_cases, only
from model_store.export.sampled import unsampled
from model_store.session import Device, open_graph
from model_store.zoo import eng_fra
from model_store.zoo.encoder_decoder import Config, Step
from model_store.zoo.tatoeba import read_corpus
from model_store.zoo.training import Checkpoint, Rates
from tests.model_store.zoo import phrases
from tests.model_store.zoo.recipes import Log, published

TINY = Config(
    vocabulary=320, source=24, target=32, encoder_layers=2, decoder_layers=1, width=32, heads=4, hidden=48,
    dropout=0.0,
)  # fmt: skip
QUICK = eng_fra.Recipe(steps=80, tokens=1_000, smoothing=0.0, rates=Rates(matrix=2e-2, other=1e-2))
HELD_OUT = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phrases.folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


@pytest.fixture(scope="module")
def trained(data: Path, log: Log) -> eng_fra.Trained:
    return eng_fra.train(data, log, QUICK, TINY, held_out=HELD_OUT)


def test_it_is_as_small_as_it_says() -> None:
    parameters = sum(each.numel() for each in eng_fra.step_module().parameters())
    assert 3_500_000 < parameters < 4_000_000


def test_training_reports_and_learns(log: Log, trained: eng_fra.Trained) -> None:
    assert [step for step, _, _ in log.seen] == list(range(1, 81))
    losses = [figures["loss"] for _, _, figures in log.seen]
    assert losses[-1] < losses[0] / 2
    assert 0 < log.seen[-1][2]["nats_per_char"] < 1
    assert not trained.step.training


def test_training_goes_on_from_a_checkpoint(data: Path, tmp_path: Path) -> None:
    checkpoint, recipe = Checkpoint(tmp_path / "state.pt"), eng_fra.Recipe(steps=3, tokens=200)
    whole = eng_fra.train(data, Log(), recipe, TINY, checkpoint, HELD_OUT)
    log = Log()
    again = eng_fra.train(data, log, recipe, TINY, checkpoint, HELD_OUT)
    assert log.seen == []
    assert torch.equal(whole.step.model.embedding.weight, again.step.model.embedding.weight)


def test_a_batch_starts_targets_and_ignores_their_padding() -> None:
    source, length, target, following = eng_fra.batch_of([([5, 6, 0], [7, 0]), ([8, 0], [9, 4, 0])])
    assert source.tolist() == [[5, 6, 0], [8, 0, 0]]
    assert length.tolist() == [3, 2]
    assert target.tolist() == [[1, 7, 0], [1, 9, 4]]
    assert following.tolist() == [[7, 0, eng_fra.IGNORED], [9, 4, 0]]


def test_every_pair_that_fits_comes_once_before_any_comes_again(data: Path, trained: eng_fra.Trained) -> None:
    pairs = read_corpus(data, HELD_OUT).train
    batches = eng_fra.stream(trained.tokenizer, pairs, QUICK, TINY)
    seen, step = 0, 0
    sources: set[tuple[int, ...]] = set()
    while seen < len(pairs):
        rows = batches(step)
        sources |= {tuple(source) for source, _ in rows}
        seen, step = seen + len(rows), step + 1
    assert seen == len(pairs)
    assert len(sources) == len({english for english, _ in pairs})


def test_what_is_too_long_is_not_learned(trained: eng_fra.Trained) -> None:
    pairs = [("word " * 40, "mot"), ("word", "mot " * 60), ("word", "mot")]
    batches = eng_fra.stream(trained.tokenizer, pairs, QUICK, TINY)
    assert [len(batches(step)) for step in range(2)] == [1, 1]


def test_greedy_is_the_models_own_choice_token_by_token(trained: eng_fra.Trained) -> None:
    texts = ["I see bread.", "they want it."]
    sources = [[*trained.tokenizer.encode(text).ids, eng_fra.END_ID] for text in texts]
    for source, answer in zip(sources, eng_fra.greedy(trained.step, sources), strict=True):
        target, length = [eng_fra.START_ID], torch.tensor([len(source)])
        for token in answer:
            with torch.no_grad():
                logits = trained.step.model(torch.tensor([source]), length, torch.tensor([target]))
            assert int(logits[0, -1].argmax()) == token
            target.append(token)


def test_translations_come_in_the_order_of_their_sentences_whatever_the_batch(
    trained: eng_fra.Trained,
) -> None:
    sentences = ["we like tea.", "I eat.", "Mary wants books and water and tea. " * 9]
    found = trained.translations(sentences)
    assert found == trained.translations(sentences, batch=1)
    assert all("<|" not in each for each in found)


def test_greedy_ends_where_the_target_must() -> None:
    torch.manual_seed(0)
    step = Step(TINY).eval()
    with torch.no_grad():
        step.model.embedding.weight[eng_fra.END_ID] = 0
    [answer] = eng_fra.greedy(step, [[5, 6, 0]])
    assert len(answer) <= TINY.target


def test_cases_fit_the_graphs_and_move_every_dimension() -> None:
    graphs = eng_fra.graphs(Path("unused"))
    check_cases(graphs["encode"], eng_fra.source_cases())
    step = unsampled(graphs["step"])
    check_cases(step, [only(step.inputs, case) for case in eng_fra.cases()])


def test_a_draft_describes_what_was_trained(data: Path, trained: eng_fra.Trained, tmp_path: Path) -> None:
    draft = eng_fra.draft(trained, data, tmp_path, Log(), QUICK, HELD_OUT)
    assert draft.text is not None
    assert draft.text.source is not None
    assert (draft.text.context, draft.text.source.context) == (32, 24)
    assert (draft.text.source.start_token_id, draft.text.source.suffix) == (1, (0,))
    given = {each.name for each in draft.graphs["encode"].outputs}
    taken = {each.name for each in draft.graphs["step"].inputs}
    assert {state.present for state in draft.text.source.state} == given
    assert {state.past for state in draft.text.source.state} <= taken
    assert (draft.provenance.steps, draft.provenance.data_licence) == (80, "CC-BY-2.0 (FR)")
    assert set(draft.quality) == {"bleu", "chrf"}
    for measure in draft.quality.values():
        assert measure.baseline is not None
        assert "20 English sentences" in measure.data


def test_what_is_trained_can_be_published_and_runs_on_what_it_read(tmp_path: Path, data: Path) -> None:
    recipe = eng_fra.Recipe(steps=2, tokens=64)
    trained = eng_fra.train(data, Log(), recipe, held_out=HELD_OUT)
    draft = eng_fra.draft(trained, data, tmp_path, Log(), recipe, HELD_OUT)
    package = published(draft, tmp_path)
    encode = open_graph(package, "encode", device=Device("cpu"), threads=1)
    open_graph(package, "step", device=Device("cpu"), threads=1)
    # A source among others leaves in ONNX Runtime what it leaves alone.
    ids, length = np.array([[5, 6, 7, 0], [9, 0, 3, 3]]), np.array([4, 2], np.int32)
    names = [state.present for state in eng_fra.sources()]
    both = encode.run({"input_ids": ids, "length": length}, names)
    alone = encode.run({"input_ids": ids[1:, :2], "length": length[1:]}, names)
    for found, expected in zip(both, alone, strict=True):
        np.testing.assert_allclose(found[1:], expected, atol=1e-5)
    sizes = [package.path(f"{name}.onnx").stat().st_size for name in ("encode", "step")]
    assert sum(sizes) < 2.1 * 4_600_000
