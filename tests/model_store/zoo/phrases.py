"""A made-up set of sentence pairs to train on in tests: somebody does something, word for word in both languages."""

from itertools import product
from pathlib import Path

from model_store.zoo.tatoeba import DATA_FILE

WHO = {"I": "je", "you": "tu", "we": "nous", "they": "ils", "Tom": "Tom", "Mary": "Marie"}
WHAT = {"see": "vois", "eat": "mange", "want": "veux", "have": "ai", "like": "aime"}
THING = {"bread": "pain", "water": "eau", "it": "\u00e7a", "books": "livres", "tea": "th\u00e9"}


def lines() -> list[str]:
    """All 150 sentences, some with a second translation; the same every time."""
    made: list[str] = []
    for who, what, thing in product(WHO, WHAT, THING):
        french = f"{WHO[who]} {WHAT[what]} {THING[thing]}"
        made.append(f"{who} {what} {thing}.\t{french}.")
        if thing == "tea":
            made.append(f"{who} {what} {thing}.\t{french}\u202f!")
    return made


def folder(place: Path, written: list[str] | None = None) -> Path:
    """A data folder that holds the pairs where the recipe looks for them."""
    target = place / DATA_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{each}\n" for each in written or lines()), encoding="utf-8")
    return place
