"""The baseline a model of pairs must beat: answer as the most similar known question was answered.

Similar means the cosine of TF-IDF vectors of words, each counted once.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


class Nearest:
    """Texts to be found again by their words."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index the texts, of which there is at least one."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(texts):
            for word in _words(text):
                places[word].append(place)
        self._places = {word: np.array(found) for word, found in places.items()}
        self._rarity = {word: float(np.log(len(texts) / len(found))) for word, found in places.items()}
        squares = np.zeros(len(texts))
        for word, found in self._places.items():
            squares[found] += self._rarity[word] ** 2
        self._length = np.sqrt(np.maximum(squares, 1e-12))

    def __call__(self, text: str) -> int:
        """Place of the text most similar to `text`, of equals the first."""
        scores = np.zeros(len(self._length))
        for word in _words(text):
            if word in self._places:
                scores[self._places[word]] += self._rarity[word] ** 2
        return int(np.argmax(scores / self._length))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+|[^\w\s]", text.lower()))
