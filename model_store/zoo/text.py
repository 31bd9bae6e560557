"""What the text models share: the corpus and its split, byte-level tokenizers, nats per character, and where it comes from.

Knows no model: a model comes in as a function from token ids to logits. The data are plays of Shakespeare, 1.1 MB.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from model_store.manifest import Measure
from model_store.zoo.ngram import witten_bell
from model_store.zoo.sources import DataSource

DATA_FILE: Final = Path("tinyshakespeare", "input.txt")
SOURCE: Final = DataSource(
    data="tiny shakespeare",
    licence="public domain",
    attribution="Works of William Shakespeare, as collected by Andrej Karpathy for char-rnn",
    home="https://github.com/karpathy/char-rnn/blob/master/data/tinyshakespeare/input.txt",
)
HELD_OUT: Final = 0.1
LEARNED: Final = replace(SOURCE, data=f"{SOURCE.data}, its first nine tenths")
BASELINE_ORDER: Final = 5
"""Of the orders 4 to 7, the n-gram model's best on the held-out text."""

Logits = Callable[[Tensor], Tensor]
"""Token ids i64 [batch, time] to logits f32 [batch, time, vocabulary]."""


class DataError(ValueError):
    """The data folder does not hold a text to learn from."""


@dataclass(frozen=True)
class Corpus:
    """A text cut into the part to train on and the part never trained on."""

    train: str
    held_out: str


def read_corpus(data: Path) -> Corpus:
    """Read `tinyshakespeare/input.txt` below `data`; the last tenth is held out, as in nanoGPT.

    Raises FileNotFoundError when there is none, DataError when it is no UTF-8 or too short to learn from.
    """
    raw = (data / DATA_FILE).read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{DATA_FILE} is not UTF-8: {error.reason} at byte {error.start}") from error
    if len(text) < 10_000:
        raise DataError(f"{DATA_FILE} has {len(text)} characters; at least 10,000 are needed to learn from")
    cut = int(len(text) * (1 - HELD_OUT))
    return Corpus(train=text[:cut], held_out=text[cut:])


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of byte-level tokenizers, in the order of the bytes they stand for."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def byte_tokenizer() -> Tokenizer:
    """One token per byte, its id the byte's value: any text can be encoded, nothing is merged."""
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def merged_tokenizer(text: str, size: int) -> Tokenizer:
    """Byte-level BPE of `size` tokens learned from `text`; any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=byte_alphabet(), show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, skip: float = 0.0) -> Tensor:
    """Token ids i64 [tokens]: the canonical ones, or with each merge skipped at the chance `skip` (BPE-dropout).

    What is skipped is drawn by the tokenizer, which takes no seed.
    """
    tokenizer.model.dropout = skip or None
    ids = tokenizer.encode(text).ids
    tokenizer.model.dropout = None
    return torch.tensor(ids, dtype=torch.int64)


def windows(tokens: Tensor, batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of `tokens` as inputs and next tokens, each i64 [batch, length]."""
    starts = torch.randint(len(tokens) - length, (batch, 1), generator=generator)
    places = starts + torch.arange(length)
    return tokens[places], tokens[places + 1]


@torch.inference_mode()
def nats_per_char(
    logits: Logits, tokens: Tensor, characters: int, *, context: int, stride: int, batch: int = 16
) -> float:
    """Total nats of `tokens`, each given up to `context` tokens before it, over the `characters` they spell.

    Windows of `context` tokens slide by `stride`, and a token counts in the first one that predicts it, so it sees at least
    `context - stride` tokens (but at the text's start). The very first token is charged as one of all, equally likely.
    """
    length = len(tokens) - 1
    context = min(context, length)
    starts = [*range(0, length - context, stride), length - context]
    total, done, vocabulary = 0.0, 0, 1
    for first in range(0, len(starts), batch):
        group = starts[first : first + batch]
        rows = torch.stack([tokens[start : start + context + 1] for start in group])
        scores = torch.log_softmax(logits(rows[:, :-1]).float(), dim=-1)
        vocabulary = scores.shape[-1]
        nats = -scores.gather(-1, rows[:, 1:, None]).squeeze(-1).double()
        for start, row in zip(group, nats, strict=True):
            total += float(row[done - start :].sum())
            done = start + context
    return (total + math.log(vocabulary)) / characters


def quality(corpus: Corpus, nats: float, *, note: str) -> dict[str, Measure]:
    """The manifest's figure, an n-gram model of the same split beside it."""
    baseline = witten_bell(corpus.train, corpus.held_out, BASELINE_ORDER)
    return {
        "nats_per_char": Measure(
            value=round(nats, 4),
            higher_is_better=False,
            data=f"{SOURCE.data}, the last {len(corpus.held_out):,} characters, never trained on",
            baseline=round(baseline, 4),
            baseline_name=f"character {BASELINE_ORDER}-gram, interpolated Witten-Bell",
            note=note,
        )
    }
