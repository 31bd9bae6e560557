import pytest
import sacrebleu

from deployments.evaluation.wording import agreement, variety

ANSWERS = ["the cat sat on the mat today", "a dog ran over the green hill", "rm -rf build"]
WANTED = [
    ["the cat sat on a mat today", "the cat sat there"],
    ["a dog ran over a green hill"],
    ["rm -rf build"],
]


def test_figures_are_sacrebleus_own() -> None:
    figures = agreement(ANSWERS, WANTED, "key")
    streams = [[each[0] for each in WANTED], [each[-1] if len(each) > 1 else None for each in WANTED]]
    assert figures["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, streams).score, rel=1e-5)  # type: ignore[arg-type]
    assert figures["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(ANSWERS, streams).score, rel=1e-5)  # type: ignore[arg-type]
    assert figures["exact_match"].value == pytest.approx(1 / 3, rel=1e-5)


def test_distinct_words_and_pairs() -> None:
    figures = variety(["a b a b", "a b"], "key")
    assert figures["distinct_1"].value == pytest.approx(2 / 6, rel=1e-5)
    assert figures["distinct_2"].value == pytest.approx(2 / 4, rel=1e-5)


def test_nothing_written_is_no_variety() -> None:
    assert variety(["", ""], "key")["distinct_1"].value == 0
