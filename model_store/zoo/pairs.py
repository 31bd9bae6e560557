"""What the models that learn from pairs of texts share: a tokenizer with marks, and batches of rows of like length.

Knows neither a model nor where the pairs come from.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from model_store.zoo.text import byte_alphabet

Row = TypeVar("Row")

END: Final = "<|end|>"
"""The mark that ends a text; its id is 0, which pads batches too."""

POOL: Final = 64
"""Batches whose rows are sorted by length together: enough that rows of a batch are hardly padded."""


def marked_tokenizer(texts: Iterable[str], size: int, marks: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE of `size` tokens learned from `texts`, after END and `marks`, whose ids are 0, 1, 2, ...

    Any text can be encoded, composed first (NFC); typographic apostrophes and spaces are read as the plain ones.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace("\u2019", "'"),
            normalizers.Replace(Regex("[\u00a0\u2009\u202f]"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=byte_alphabet(),
        special_tokens=[END, *marks],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def batches(lengths: Sequence[int], tokens: int, chance: random.Random) -> list[list[int]]:
    """All rows once, by place, in random batches of at most `tokens` (at least one row), rows of like length together."""
    order = list(range(len(lengths)))
    chance.shuffle(order)
    average = max(1, sum(lengths) // max(1, len(lengths)))
    pool = POOL * max(1, tokens // average)
    made: list[list[int]] = []
    for first in range(0, len(order), pool):
        batch: list[int] = []
        for place in sorted(order[first : first + pool], key=lengths.__getitem__):
            if batch and lengths[place] * (len(batch) + 1) > tokens:
                made.append(batch)
                batch = []
            batch.append(place)
        made.append(batch)
    chance.shuffle(made)
    return made


class Stream(Generic[Row]):
    """Batches without end: all rows once, as `draw` draws them anew, before any comes again."""

    def __init__(
        self,
        draw: Callable[[random.Random], Sequence[Row]],
        length: Callable[[Row], int],
        *,
        tokens: int,
        seed: int,
    ) -> None:
        self._draw = draw
        self._length = length
        self._tokens = tokens
        self._seed = seed
        self._waiting: list[list[Row]] = []

    def __call__(self, step: int) -> list[Row]:
        """The next batch, of at most `tokens`; `step` is part of the seed where it begins anew."""
        if not self._waiting:
            chance = random.Random(f"{self._seed} {step}")
            rows = self._draw(chance)
            groups = batches([self._length(row) for row in rows], self._tokens, chance)
            self._waiting = [[rows[place] for place in group] for group in groups]
        return self._waiting.pop()


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """Rows as i64 [rows, longest], filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
