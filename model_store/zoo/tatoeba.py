"""The English-French sentence pairs of Tatoeba: read, made plain, and split by the English sentence. Knows no model."""

import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_store.zoo.text import DataError

DATA_FILE: Final = Path("tatoeba-eng-fra", "fra.txt")
HELD_OUT: Final = 2_000
"""English sentences that are translated to measure, never trained on."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """Pairs to learn from, and English sentences with all their known translations that are never trained on."""

    train: tuple[Pair, ...]
    held_out: Mapping[str, tuple[str, ...]]


def plain(sentence: str) -> str:
    """A sentence with typographic apostrophes and spaces made plain, as the tokenizer reads it."""
    return re.sub("[\u00a0\u2009\u202f ]+", " ", sentence.replace("\u2019", "'")).strip()


def read_corpus(data: Path, held_out: int = HELD_OUT) -> Corpus:
    """Read `tatoeba-eng-fra/fra.txt` below `data`: a pair a line, English and French with a tab between.

    Held out are sentences whose English, but for case and punctuation, is in no pair to learn from.
    Raises FileNotFoundError when there is none, DataError when it is no UTF-8, no pairs, or too few to learn from.
    """
    try:
        lines = (data / DATA_FILE).read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{DATA_FILE} is not UTF-8: {error.reason} at byte {error.start}") from error
    found: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for number, line in enumerate(lines, 1):
        parts = line.split("\t")
        if len(parts) < 2:
            raise DataError(f"{DATA_FILE}, line {number}: no tab between English and French")
        english, french = plain(parts[0]), plain(parts[1])
        found[re.sub(r"\W+", " ", english.lower()).strip()][english][french] = None
    keys = sorted(found)
    if len(keys) < 2 * held_out:
        raise DataError(
            f"{DATA_FILE} has {len(keys)} English sentences; at least {2 * held_out} are needed to learn from"
        )
    random.Random(0).shuffle(keys)
    apart = {english: tuple(french) for key in keys[:held_out] for english, french in found[key].items()}
    pairs = [
        (english, french)
        for key in keys[held_out:]
        for english, several in found[key].items()
        for french in several
    ]
    return Corpus(train=tuple(pairs), held_out=dict(list(apart.items())[:held_out]))
