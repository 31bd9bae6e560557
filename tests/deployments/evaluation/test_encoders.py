"""Evaluations of models that embed or classify texts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deployments.evaluation.encoders import nearest, spearman
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.estimates import Sampling
from deployments.evaluation.evaluate import Plan, evaluate
from deployments.evaluation.record import Evaluation
from model_store.store import Store
from tests import encoders


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    encoders.encoder(folder)
    encoders.encoder(folder, name="tiny-classifier", classes=["sad", "glad"])
    return Store(folder)


def run(store: Store, name: str, folder: Path, *lines: str) -> Evaluation:
    path = folder / "texts.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    record, _ = evaluate(store.open(name), Plan(path, device="cpu"), lambda *_: None)
    assert Evaluation.model_validate_json(record.model_dump_json()) == record
    return record


def test_texts_of_a_label_lie_together(store: Store, tmp_path: Path) -> None:
    rows = [f"{letter * count},{letter}" for letter in "ab" for count in range(1, 9)]
    record = run(store, "tiny-encoder", tmp_path, "text,label", *rows)
    assert record.figures["knn_accuracy"].value == 1  # a text of one letter has that letter's vector
    assert "alone: 0.5" in record.figures["knn_accuracy"].about
    assert record.data.groups == {"a": 8, "b": 8}
    assert {"latency_p50", "throughput_32"} <= record.figures.keys()


def test_pairs_that_are_alike_are_near(store: Store, tmp_path: Path) -> None:
    words = ["none", "nan", "abc", "xyz", "hello"]
    pairs = [
        (a, b, float(encoders.vector(a.encode()) @ encoders.vector(b.encode()))) for a in words for b in words
    ]
    record = run(
        store, "tiny-encoder", tmp_path, "a,b,score", *(f"{a},{b},{score:.4f}" for a, b, score in pairs)
    )
    assert record.figures["similarity"].value > 0.98
    assert record.data.groups == {}


def test_classes_are_those_of_the_model(store: Store, tmp_path: Path) -> None:
    texts = [chr(97 + place) for place in range(20)]
    classes = [
        ("sad", "glad")[int(encoders.TABLE[ord(each)][1] > encoders.TABLE[ord(each)][0])] for each in texts
    ]
    rows = [f"{text},{label}" for text, label in zip(texts, classes, strict=True)]
    assert run(store, "tiny-classifier", tmp_path, "text,label", *rows).figures["accuracy"].value == 1


@pytest.mark.parametrize(
    ("name", "lines", "complaint"),
    [
        ("tiny-encoder", ["words", "x"], "has no column text, only words; needed are columns text and label"),
        ("tiny-encoder", ["a,b,score", "x,y,"], "line 2: there is no score"),
        ("tiny-encoder", ["text,label", "x,1", "y,2"], "nearest neighbours need more than 5 texts"),
        ("tiny-encoder", ["text,label", "x,1", f"{'y' * 99},2"], r"the model refuses the data: .*item 1"),
        ("tiny-classifier", ["text,label", "x,angry"], "the model has no class 'angry', only sad, glad"),
        ("tiny-classifier", ["a,b,score", "x,y,1"], "give columns text and label"),
    ],
)
def test_other_data_is_refused(
    store: Store, name: str, lines: list[str], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=complaint):
        run(store, name, tmp_path, *lines)


def test_neighbours_vote_and_the_nearest_decides() -> None:
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.45, 0.5, 3.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    labels = ["a", "a", "a", "b", "b", "b", "b"]
    # The first: two of a against three of b; the last: three of b (nearest) against two of a.
    assert nearest(vectors, labels).tolist()[::6] == [False, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, np.float64).T
    if np.ptp(first) and np.ptp(second):
        expected = stats.spearmanr(first, second).statistic
        assert spearman(first, second)(Sampling.of("x", len(first)).ones) == pytest.approx(expected, abs=1e-9)
    else:
        assert spearman(first, second)(np.ones(len(first))) == 0
