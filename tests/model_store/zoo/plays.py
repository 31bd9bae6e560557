"""A made-up text to train on in tests: lines of invented words, small enough to read in milliseconds."""

from pathlib import Path

import numpy as np

from model_store.zoo.text import DATA_FILE


def text(characters: int = 20_000) -> str:
    """Speakers and lines; the same text every time, from 300 words, some of them much more frequent."""
    generator = np.random.default_rng(0)
    letters = list("abcdefghilmnoprstuw")
    words = ["".join(generator.choice(letters, generator.integers(2, 8))) for _ in range(300)]
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        chosen = (words[int(300 * generator.random() ** 3)] for _ in range(6))
        lines.append(f"{generator.choice(['ROMEO', 'JULIET'])}:\n{' '.join(chosen).capitalize()}.\n\n")
    return "".join(lines)[:characters]


def folder(place: Path, characters: int = 20_000) -> Path:
    """A data folder that holds the text where recipes look for it."""
    target = place / DATA_FILE
    target.parent.mkdir(parents=True)
    target.write_text(text(characters), encoding="utf-8")
    return place
