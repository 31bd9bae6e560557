"""What the tiny packages of `tests/packages.py` promise to every other test."""

from pathlib import Path

import numpy as np
import pytest

from model_store.session import open_graph
from model_store.state import StateBuffer
from model_store.store import Store
from tests import packages
from tests.graphs import Array


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(packages.store(tmp_path_factory.mktemp("store")))


def text_feeds(rows: list[list[int]], **changes: Array) -> dict[str, Array]:
    """Greedy choice of what follows the last of each row's tokens (rows are equally long)."""
    count, last = len(rows), len(rows[0]) - 1
    feeds: dict[str, Array] = {
        "input_ids": np.array(rows, np.int64),
        "select": np.full((count, 1), last, np.int64),
        "target": np.full((count, 1), -1, np.int64),
        "temperature": np.zeros(count, np.float32),
        "top_k": np.zeros(count, np.int64),
        "top_p": np.ones(count, np.float32),
        "min_p": np.zeros(count, np.float32),
        "uniform": np.zeros(count, np.float32),
        "edit_token": np.zeros((count, 0), np.int64),
        "edit_scale": np.ones((count, 0), np.float32),
        "edit_add": np.zeros((count, 0), np.float32),
        "mask_row": np.zeros(0, np.int64),
        "mask": np.zeros((0, 8), np.int32),
        "candidates": np.zeros(256, np.int64),
        "alternatives": np.zeros(20, np.int64),
    }
    return feeds | changes


def counted(rows: list[list[int]], **changes: Array) -> dict[str, Array]:
    return text_feeds(rows, **{"past.count": np.zeros((len(rows), 1), np.float32), **changes})


def test_greedy_counts_up_and_wraps(store: Store) -> None:
    step = open_graph(store.open("tiny-text"), "step")
    token, logprob, top = step.run(
        counted([list(b"abc"), [253, 254, 255]]), ["token", "logprob", "top_token"]
    )
    assert token.tolist() == [[ord("d")], [0]]
    assert top[:, 0, 0].tolist() == [ord("d"), 0]
    assert (np.exp(logprob) > 0.85).all()


def test_the_runner_up_is_the_number_of_tokens_fed(store: Store) -> None:
    step = open_graph(store.open("tiny-text"), "step")
    past = np.array([[0], [40]], np.float32)
    top, present = step.run(counted([[9, 9, 9]] * 2, **{"past.count": past}), ["top_token", "present.count"])
    assert top[:, 0, 1].tolist() == [3, 43]
    assert present.tolist() == [[3], [43]]


def test_a_forced_token_is_reported_with_its_own_probability(store: Store) -> None:
    step = open_graph(store.open("tiny-text"), "step")
    forced = counted([list(b"abc")], target=np.array([[ord("z")]]))
    token, logprob = step.run(forced, ["token", "logprob"])
    assert token.tolist() == [[ord("z")]]
    assert logprob[0, 0] < -7


@pytest.mark.parametrize(
    ("temperature", "changes", "only"),
    [
        (5, {"top_k": np.array([1])}, {ord("d")}),
        (5, {"top_k": np.array([2])}, {ord("d"), 3}),
        (1, {"top_p": np.array([0.5], np.float32)}, {ord("d")}),
        (1, {"top_p": np.array([0.92], np.float32)}, {ord("d"), 3}),
        (5, {"top_p": np.array([0.9], np.float32), "top_k": np.array([3])}, {ord("d"), 3, 0}),
    ],
)
def test_top_k_and_top_p_narrow_the_choice(
    store: Store, temperature: float, changes: dict[str, Array], only: set[int]
) -> None:
    step = open_graph(store.open("tiny-text"), "step")
    feeds = counted([list(b"abc")], temperature=np.array([temperature], np.float32), **changes)
    numbers = [np.array([u], np.float32) for u in np.linspace(0, 0.9999, 60)]
    drawn = {int(step.run(feeds | {"uniform": number}, ["token"])[0][0, 0]) for number in numbers}
    assert drawn == only


def test_the_uniform_number_decides_by_the_inverse_of_the_cumulated_probabilities(store: Store) -> None:
    step = open_graph(store.open("tiny-text"), "step")
    feeds = counted([list(b"abc")], temperature=np.array([1], np.float32), top_k=np.array([256]))
    share = float(np.exp(step.run(feeds, ["logprob"])[0][0, 0]))
    for uniform, expected in ((0, ord("d")), (share - 0.01, ord("d")), (share + 0.005, 3), (0.99999, 255)):
        token = step.run(feeds | {"uniform": np.array([uniform], np.float32)}, ["token"])[0]
        assert token[0, 0] == expected


def test_end_of_text_comes_when_asked_for(tmp_path: Path) -> None:
    step = open_graph(Store(packages.text(tmp_path, eos_after=5).parents[1]).open("tiny-text"), "step")
    past = np.array([[3], [4]], np.float32)
    assert step.run(counted([[7], [7]], **{"past.count": past}), ["token"])[0].tolist() == [[8], [0]]


def test_attention_writes_its_cache_in_place_row_by_row(store: Store) -> None:
    """Prefill one row at a time into its slot, decode all together: the runner-up is the mean of each row's tokens."""
    step = open_graph(store.open("tiny-attention"), "step")
    keys, values = (StateBuffer(3, (1, 64, 8)) for _ in range(2))
    prompts = [[10, 20, 30], [100], [7, 8]]

    def run(rows: list[list[int]], first: int, lengths: list[int]) -> tuple[Array, Array]:
        feeds = text_feeds(
            rows,
            seqlens_k=np.array(lengths, np.int32) - 1,
            total_sequence_length=np.array(max(lengths), np.int32),
        )
        token, top = np.zeros((len(rows), 1), np.int64), np.zeros((len(rows), 1, 20), np.int64)
        here = {
            f"0.{kind}": buffer.place(first, len(rows)) for kind, buffer in (("key", keys), ("value", values))
        }
        past = {f"past_key_values.{name}": place for name, place in here.items()}
        present = {f"present.{name}": place for name, place in here.items()}
        step.bind({**feeds, **past}, {"token": token, "top_token": top, **present}).run()
        return token[:, 0], top[:, 0, 1]

    for slot, prompt in enumerate(prompts):
        token, runner_up = run([prompt], slot, [len(prompt)])
        assert (token[0], runner_up[0]) == (prompt[-1] + 1, sum(prompt) // len(prompt))
    lengths = [len(prompt) for prompt in prompts]
    for _ in range(4):
        rows = [[prompt[-1] + 1] for prompt in prompts]
        prompts = [prompt + row for prompt, row in zip(prompts, rows, strict=True)]
        lengths = [length + 1 for length in lengths]
        token, runner_up = run(rows, 0, lengths)
        assert token.tolist() == [prompt[-1] + 1 for prompt in prompts]
        assert runner_up.tolist() == [sum(prompt) // len(prompt) for prompt in prompts]
    stored = values.read()[:, 0, :, 0]
    for row, prompt in enumerate(prompts):
        assert stored[row, : len(prompt)].tolist() == prompt


def test_a_prompt_in_chunks_is_a_prompt_at_once(store: Store) -> None:
    step = open_graph(store.open("tiny-attention"), "step")
    cache = [np.zeros((1, 1, 64, 8), np.float32) for _ in range(2)]
    names = ("past_key_values.0.key", "past_key_values.0.value")

    def feed(tokens: list[int], before: int) -> Array:
        total = before + len(tokens)
        lengths = {
            "seqlens_k": np.array([total - 1], np.int32),
            "total_sequence_length": np.array(total, np.int32),
        }
        feeds = text_feeds([tokens], **lengths, **dict(zip(names, cache, strict=True)))
        top, cache[0], cache[1] = step.run(feeds, ["top_token", "present.0.key", "present.0.value"])
        return top[0, 0, :2]

    tokens = [5, 9, 200, 31, 64]
    feed(tokens[:2], 0)
    assert feed(tokens[2:], 2).tolist() == [65, sum(tokens) // 5]
