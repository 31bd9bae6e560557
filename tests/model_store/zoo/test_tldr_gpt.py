import random
from pathlib import Path

import pytest
import torch
from jinja2 import Environment

from model_store.session import open_graph
from model_store.zoo import tldr_gpt as gpt
from model_store.zoo.pairs import END, marked_tokenizer
from model_store.zoo.tldr import Example, opening, read_corpus
from model_store.zoo.training import Checkpoint, Rates
from model_store.zoo.transformer import Config, Step
from tests.model_store.zoo import manuals
from tests.model_store.zoo.recipes import Log, published

TINY = Config(vocabulary=320, context=96, layers=2, width=32, heads=4, kv_heads=2, hidden=48, dropout=0.0)
QUICK = gpt.Recipe(steps=60, tokens=1_500, rates=Rates(matrix=2e-2, other=1e-2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manuals.folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


@pytest.fixture(scope="module")
def trained(data: Path, log: Log) -> gpt.Trained:
    return gpt.train(data, log, QUICK, TINY)


def test_it_is_as_small_as_it_says() -> None:
    parameters = sum(each.numel() for each in gpt.step_module().parameters())
    assert 3_400_000 < parameters < 4_000_000


def test_training_reports_and_learns(log: Log, trained: gpt.Trained) -> None:
    assert [step for step, _, _ in log.seen] == list(range(1, 61))
    losses = [figures["loss"] for _, _, figures in log.seen]
    assert losses[-1] < losses[0] - 3
    assert 0 < log.seen[-1][2]["nats_per_char"] < 2
    assert not trained.step.training


def test_training_goes_on_from_a_checkpoint(data: Path, tmp_path: Path) -> None:
    checkpoint, recipe = Checkpoint(tmp_path / "state.pt"), gpt.Recipe(steps=3, tokens=200)
    whole = gpt.train(data, Log(), recipe, TINY, checkpoint)
    log = Log()
    again = gpt.train(data, log, recipe, TINY, checkpoint)
    assert log.seen == []
    assert torch.equal(whole.step.model.embedding.weight, again.step.model.embedding.weight)


def test_chats_hold_every_example_once_and_are_drawn_anew(data: Path) -> None:
    corpus, chance = read_corpus(data), random.Random(0)
    drawn = [gpt.chats(corpus.train, QUICK, chance) for _ in range(2)]
    for chats in drawn:
        answers = sorted(answer for turns in chats for _, answer in turns)
        assert answers == sorted(each.command + END for each in corpus.train)
    assert drawn[0] != drawn[1]
    assert {len(turns) for turns in drawn[0]} == {1, 2, 3}


def test_turns_of_a_chat_are_of_one_page_and_only_the_first_is_told_more(data: Path) -> None:
    recipe = gpt.Recipe(named=1.0, placed=1.0, longer=1.0)
    for turns in gpt.chats(read_corpus(data).train, recipe, random.Random(0)):
        programs = {answer.split()[0] for _, answer in turns}
        assert len(programs) == 1
        assert f"<|user|>{programs.pop()}: " in turns[0][0]
        assert all(": " not in question and "system" not in question for question, _ in turns[1:])


def test_what_is_vague_is_always_named() -> None:
    example = Example(("common", "tool"), "Display help", "tool --help", vague=True)
    [[(question, answer)]] = gpt.chats([example], gpt.Recipe(named=0.0), random.Random(0))
    assert "<|user|>tool: " in question
    assert answer == "tool --help<|end|>"


def test_rows_weigh_answers_and_leave_out_what_does_not_fit() -> None:
    tokenizer = marked_tokenizer(["ls"], 300, ["<|user|>", "<|assistant|>"])
    question, answer = opening(None, "ab"), "ls" + END
    [(ids, weights)] = gpt.rows(tokenizer, [[(question, answer), ("x" * 50, "y")]], 20, 0.2)
    assert tokenizer.decode(ids, skip_special_tokens=False) == question + answer
    assert weights == [0.2] * 5 + [1.0] * (len(ids) - 5)
    assert gpt.rows(tokenizer, [[("x" * 50, "y")]], 20, 0.2) == []


def test_a_batch_predicts_the_next_token_and_padding_counts_for_nothing() -> None:
    ids, following, weights = gpt.batch_of([([5, 6, 7], [0.0, 1.0, 1.0]), ([8, 9], [0.2, 1.0])])
    assert ids.tolist() == [[5, 6], [8, 9]]
    assert following.tolist() == [[6, 7], [9, 0]]
    assert weights.tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_greedy_is_the_models_own_choice_token_by_token(trained: gpt.Trained) -> None:
    prompts = [trained.tokenizer.encode(opening(None, text)).ids for text in ("copy ab", "sort xy")]
    assert len(prompts[0]) == len(prompts[1])
    found = gpt.greedy(trained.step, torch.tensor(prompts), 8)
    for prompt, answer in zip(prompts, found, strict=True):
        text = list(prompt)
        for token in answer:
            with torch.no_grad():
                assert int(trained.step.model(torch.tensor([text]))[0, -1].argmax()) == token
            text.append(token)


def test_greedy_stops_at_the_limit_and_at_the_end_of_the_context() -> None:
    torch.manual_seed(0)
    step = Step(TINY).eval()
    with torch.no_grad():
        step.model.embedding.weight[gpt.END_ID] = 0
    long = torch.full((1, 90), 5)
    assert len(gpt.greedy(step, long[:, :3], 4)[0]) <= 4
    assert len(gpt.greedy(step, long, 20)[0]) <= 6


def test_commands_come_in_the_order_of_their_questions(trained: gpt.Trained) -> None:
    prompts = [opening(None, text) for text in ("copy the file `1`", "sort", "tool5: list the folder")]
    assert trained.commands(prompts) == [trained.commands([each])[0] for each in prompts]
    assert all("<|" not in each for each in trained.commands(prompts))


def test_answers_are_counted() -> None:
    answers = gpt.Answers(("ls -l", "cp a b"), ("ls -l", "mv a b"))
    assert answers.exact() == 0.5
    assert 50 < answers.chrf() < 100


def refuse(message: str) -> None:
    raise ValueError(message)


def render(*messages: tuple[str, str], prompt: bool = True) -> str:
    template = Environment(autoescape=False).from_string(gpt.template())  # noqa: S701 - it makes no HTML
    told = [{"role": role, "content": content} for role, content in messages]
    return template.render(messages=told, add_generation_prompt=prompt, raise_exception=refuse)


def test_the_template_writes_what_the_model_read() -> None:
    assert render(("system", "Linux"), ("user", " List files ")) == opening("Linux", "List files")
    whole = render(("user", "a"), ("assistant", "b"), prompt=False)
    assert whole == opening(None, "a") + "b" + END
    with pytest.raises(ValueError, match="there is no role tool"):
        render(("tool", "x"))


def test_a_draft_describes_what_was_trained(data: Path, trained: gpt.Trained, tmp_path: Path) -> None:
    draft = gpt.draft(trained, data, tmp_path, Log(), QUICK)
    assert draft.text is not None
    assert draft.text.chat is not None
    assert draft.files[draft.text.chat.template].decode() == gpt.template()
    assert draft.text.eos_token_ids == (0,)
    assert (draft.provenance.steps, draft.provenance.data_licence) == (60, "CC-BY-4.0")
    assert set(draft.quality) == {
        f"{name}{suffix}" for name in ("exact_match", "chrf") for suffix in ("", "_unnamed", "_unknown")
    }
    for measure in draft.quality.values():
        assert measure.baseline is not None


def test_what_is_trained_can_be_published_and_opened(tmp_path: Path, data: Path) -> None:
    recipe = gpt.Recipe(steps=2, tokens=64)
    draft = gpt.draft(gpt.train(data, Log(), recipe), data, tmp_path, Log(), recipe)
    package = published(draft, tmp_path)
    open_graph(package, "step")  # replays the golden pair
    assert package.path("step.onnx").stat().st_size < 2.1 * 3_600_000
