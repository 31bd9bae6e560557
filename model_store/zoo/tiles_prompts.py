"""How captions of tiles are said and how they become token ids. Knows neither pictures nor models."""

import random
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from model_store.zoo.pairs import END
from model_store.zoo.text import byte_alphabet
from model_store.zoo.tiles_captions import Caption

TOKENS: Final = 24
"""Token ids of a prompt; shorter ones are padded with 0, the id of END."""

VOCABULARY: Final = 2048


def make_tokenizer(texts: Iterable[str], size: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE of at most `size` tokens learned from `texts`; small and capital letters are the same.

    A word is the same tokens wherever it stands, and any text can be encoded.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=byte_alphabet(), special_tokens=[END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids [count, TOKENS] int64 of texts and how many of them count [count] int32; what is too long is cut."""
    rows = [each.ids[:TOKENS] for each in tokenizer.encode_batch(list(texts))]
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    return torch.tensor([row + [0] * (TOKENS - len(row)) for row in rows]), lengths


def said(caption: Caption, chance: random.Random) -> str:
    """The caption as one of many people might say it, as true as it was: less of it, or in another order."""
    subject, kind = list(caption.subject), list(caption.kind)
    if len(subject) > 1 and chance.random() < 0.2:
        del subject[chance.randrange(len(subject))]
    if subject and kind and chance.random() < 0.25:
        kind = kind[: chance.randrange(len(kind))]
    if len(subject) > 1 and chance.random() < 0.2:
        chance.shuffle(subject)
    parts = [" ".join(words) for words in (subject, kind) if words]
    if chance.random() < 0.15:
        parts.reverse()
    return chance.choice((", ", ", ", " ")).join(parts)
