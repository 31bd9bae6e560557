"""The baseline a text model must beat: a character n-gram model with interpolated Witten-Bell smoothing."""

import math
from collections import Counter, defaultdict

ALPHABET = 256
"""Characters nothing is known of share the probability of one in this many."""


def witten_bell(train: str, held_out: str, order: int) -> float:
    """Nats per character of `held_out` under counts from `train` of the `order - 1` characters before each.

    A context trusts its own counts by how often it was seen against how many different characters followed it
    (Witten and Bell, 1991), and leaves the rest to the context one shorter, down to the uniform distribution.
    """
    counts = [_counts(train, length) for length in range(order)]
    nats = 0.0
    for place, character in enumerate(held_out):
        probability = 1 / ALPHABET
        for length, contexts in enumerate(counts[: place + 1]):
            seen = contexts.get(held_out[place - length : place])
            if seen is None:
                break
            kinds = len(seen)
            probability = (seen[character] + kinds * probability) / (seen.total() + kinds)
        nats -= math.log(probability)
    return nats / len(held_out)


def _counts(text: str, length: int) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for place in range(length, len(text)):
        counts[text[place - length : place]][text[place]] += 1
    return dict(counts)
