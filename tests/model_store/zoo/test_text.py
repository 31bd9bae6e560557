import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model_store.zoo import text

SCENE = (
    "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n\n"
)
BYTES = text.byte_tokenizer()
MERGED = text.merged_tokenizer(SCENE * 20, 300)


def write(data: Path, content: bytes) -> Path:
    target = data / text.DATA_FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    return data


def test_the_last_tenth_is_held_out(tmp_path: Path) -> None:
    whole = SCENE * 200
    corpus = text.read_corpus(write(tmp_path, whole.encode()))
    assert corpus.train + corpus.held_out == whole
    assert len(corpus.train) == int(0.9 * len(whole))


def test_a_missing_text_is_a_file_not_found_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"input\.txt"):
        text.read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"), [(b"\xff\xfe" * 9000, "no|not UTF-8"), (b"short", "5 characters")]
)
def test_what_is_no_text_to_learn_from_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(text.DataError, match=says):
        text.read_corpus(write(tmp_path, content))


@given(st.text())
def test_the_byte_tokenizers_ids_are_the_bytes(written: str) -> None:
    ids = BYTES.encode(written).ids
    assert bytes(ids) == written.encode()
    assert BYTES.decode(ids) == written


@given(st.text())
def test_any_text_survives_the_merged_tokenizer(written: str) -> None:
    assert MERGED.decode(MERGED.encode(written).ids) == written


def test_the_merged_tokenizer_has_the_asked_size_and_is_shorter() -> None:
    assert MERGED.get_vocab_size() == 300
    assert len(MERGED.encode(SCENE).ids) < 0.8 * len(SCENE)


def test_skipped_merges_spell_the_same_text_with_more_tokens() -> None:
    canonical, skipped = text.encode(MERGED, SCENE), text.encode(MERGED, SCENE, skip=0.5)
    assert len(skipped) > len(canonical)
    assert MERGED.decode(skipped.tolist()) == SCENE
    assert torch.equal(text.encode(MERGED, SCENE), canonical)  # the tokenizer is left as it was


def test_windows_are_pieces_of_the_text_and_what_follows() -> None:
    ids, following = text.windows(torch.arange(100), 16, 10, torch.Generator().manual_seed(0))
    assert ids.shape == following.shape == (16, 10)
    assert torch.equal(following, ids + 1)
    assert len(set(ids[:, 0].tolist())) > 8


class Remembers(nn.Module):
    """Expects the token before to come again, the surer the more tokens it sees."""

    def forward(self, ids: Tensor) -> Tensor:
        seen = torch.arange(1, ids.shape[1] + 1)[None, :, None] / 32
        return seen * nn.functional.one_hot(ids, 5)


def uniform(ids: Tensor) -> Tensor:
    return torch.zeros(*ids.shape, 4)


@pytest.mark.parametrize("length", [2, 9, 64, 65, 100])
@pytest.mark.parametrize("stride", [1, 7, 16])
def test_every_token_is_counted_once(length: int, stride: int) -> None:
    tokens = torch.randint(4, (length,), generator=torch.Generator().manual_seed(length))
    nats = text.nats_per_char(uniform, tokens, characters=length, context=16, stride=stride, batch=3)
    assert nats == pytest.approx(math.log(4))


def test_nats_are_over_characters_not_tokens() -> None:
    tokens = torch.zeros(50, dtype=torch.int64)
    assert text.nats_per_char(uniform, tokens, 100, context=16, stride=8) == pytest.approx(math.log(4) / 2)


def test_a_smaller_stride_gives_more_context() -> None:
    tokens = torch.zeros(200, dtype=torch.int64)  # a text that says the same all the time

    def nats(stride: int) -> float:
        return text.nats_per_char(Remembers(), tokens, 200, context=32, stride=stride)

    assert nats(4) < nats(16) < nats(32)


def test_a_window_of_the_whole_text_is_the_plain_sum() -> None:
    tokens = torch.randint(5, (40,), generator=torch.Generator().manual_seed(1))
    scores = Remembers()(tokens[None, :-1]).log_softmax(-1)[0]
    plain = float(-scores.gather(1, tokens[1:, None]).sum()) + math.log(5)
    assert text.nats_per_char(Remembers(), tokens, 40, context=1000, stride=1) == pytest.approx(plain / 40)


def test_quality_stands_beside_the_ngram_baseline() -> None:
    corpus = text.Corpus(train=SCENE * 30, held_out=SCENE)
    measure = text.quality(corpus, 1.23456, note="how")["nats_per_char"]
    assert measure.value == 1.2346
    assert not measure.higher_is_better
    assert measure.baseline is not None
    assert 0 < measure.baseline < 1  # it has seen the scene
    assert str(len(SCENE)) in measure.data


def test_provenance_counts_parameters_and_names_the_source() -> None:
    source = text.LEARNED.provenance(nn.Linear(3, 4), "some_recipe", seed=7, steps=11)
    assert (source.parameters, source.seed, source.steps, source.recipe) == (16, 7, 11, "some_recipe")
    assert source.data_licence == "public domain"
    assert source.home.startswith("https://")
