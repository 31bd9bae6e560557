import re
from pathlib import Path

import pytest

from model_store.zoo.tatoeba import DATA_FILE, plain, read_corpus
from model_store.zoo.text import DataError
from tests.model_store.zoo import phrases


def key(sentence: str) -> str:
    return re.sub(r"\W+", " ", sentence.lower()).strip()


def test_no_english_sentence_is_on_both_sides_in_any_form(tmp_path: Path) -> None:
    other = ["I SEE it\tje vois \u00e7a", "i see, it!\tje le vois"]
    corpus = read_corpus(phrases.folder(tmp_path, [*phrases.lines(), *other]), held_out=40)
    assert len(corpus.held_out) == 40
    assert not {key(english) for english, _ in corpus.train} & {key(english) for english in corpus.held_out}
    assert len({key(english) for english, _ in corpus.train}) == 150 - 40


def test_held_out_sentences_have_all_their_translations_and_the_split_is_always_the_same(
    tmp_path: Path,
) -> None:
    data = phrases.folder(tmp_path)
    corpus = read_corpus(data, held_out=40)
    assert corpus == read_corpus(data, held_out=40)
    for english, several in corpus.held_out.items():
        assert len(several) == (2 if "tea" in english else 1)


def test_pairs_count_once(tmp_path: Path) -> None:
    corpus = read_corpus(phrases.folder(tmp_path, phrases.lines() * 2), held_out=1)
    assert len(corpus.train) == len(set(corpus.train))


def test_typographic_marks_become_plain() -> None:
    assert plain(" C\u2019est\u202fbon\u00a0\u2009! ") == "C'est bon !"


def test_more_columns_than_two_are_ignored(tmp_path: Path) -> None:
    corpus = read_corpus(phrases.folder(tmp_path, [f"{line}\tCC-BY" for line in phrases.lines()]), held_out=1)
    assert all("CC-BY" not in french for _, french in corpus.train)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"Hi.\tSalut.\nHi\n", "line 2: no tab"),
        (b"\xff\xfe", "not UTF-8: invalid start byte at byte 0"),
        (b"Hi.\tSalut.\n", "1 English sentences; at least 4000 are needed"),
    ],
)
def test_other_data_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    target = phrases.folder(tmp_path) / DATA_FILE
    target.write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_corpus(tmp_path)


def test_missing_data_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_corpus(tmp_path)
