"""Captions of the tiles, from the paths they are published under: what a picture shows, then what kind of thing that is.

`Nov-2015/mon/undead/spectrals/spectral_ant2.png` becomes "spectral ant, undead monster". Knows paths, not pictures.
"""

import re
from dataclasses import dataclass
from typing import Final

FOLDERS: Final = {
    "dngn": "",
    "dc-dngn": "",
    "unused": "",
    "misc": "",
    "dc-misc": "",
    "other": "",
    "features": "",
    "doll_only": "",
    "sprint": "",
    "aberr": "",
    "vaults": "vault",
    "mon": "monster",
    "dc-mon": "monster",
    "monsters": "monster",
    "animals": "animal",
    "demons": "demon",
    "dragons": "dragon",
    "draco": "draconian",
    "eyes": "eye",
    "statues": "statue",
    "skeletons": "skeleton",
    "zombies": "zombie",
    "spectrals": "spectral",
    "simulacra": "simulacrum",
    "tentacles": "tentacle",
    "vine_segments": "vine segment",
    "vine_ends": "vine end",
    "starspawn_segments": "starspawn segment",
    "starspawn_ends": "starspawn end",
    "kraken_segments": "kraken segment",
    "kraken_ends": "kraken end",
    "eldritch_ends": "eldritch end",
    "fungi_plants": "plant",
    "panlord": "demon",
    "weapons": "weapon",
    "brands": "brand",
    "chunk_brands": "chunk brand",
    "bardings": "barding",
    "shields": "shield",
    "headgear": "hat",
    "potions": "potion",
    "books": "book",
    "rings": "ring",
    "runes": "rune",
    "gui": "icon",
    "commands": "command",
    "skills": "skill",
    "spells": "spell icon",
    "invocations": "invocation",
    "abilities": "ability",
    "disciplines": "discipline",
    "components": "component",
    "startup": "menu",
    "icons": "icon",
    "numbers": "number",
    "player": "worn",
    "worn": "worn",
    "base": "person",
    "hand1": "held",
    "hand2": "held left",
    "drchead": "draconian head",
    "drcwing": "draconian wings",
    "felids": "cat",
    "ench": "",
    "mutations": "mutation",
    "gateways": "gateway",
    "altars": "altar",
    "doors": "door",
    "traps": "trap",
    "trees": "tree",
    "shops": "shop",
    "torches": "torch",
    "banners": "banner",
    "sigils": "sigil",
}
"""What a folder of the collection says of the tiles in it; a folder that is not named here says its own name."""

WORDS: Final = {
    "dngn": "",
    "misc": "",
    "urand": "",
    "i": "symbol",
    "art": "",
    "ego": "",
    "gray": "grey",
    "draco": "draconian",
    "drchead": "draconian head",
    "drcwing": "draconian wings",
    "spwpn": "special weapon",
    "dragonsc": "dragon scale",
    "dragonarm": "dragon armour",
    "lshield": "large shield",
    "lab": "laboratory",
    "bk": "book",
    "neg": "negative",
    "res": "resistance",
    "btm": "south",
    "bottom": "south",
    "top": "north",
    "lft": "west",
    "rgt": "east",
    "n": "north",
    "s": "south",
    "e": "east",
    "w": "west",
    "ne": "north east",
    "nw": "north west",
    "se": "south east",
    "sw": "south west",
    "altars": "altar",
    "statues": "statue",
    "vines": "vine",
    "armor": "armour",
}
"""What a word of a file's name means where it is no plain English; an empty meaning says nothing of the picture."""

SHADES: Final = re.compile(r"(light|dark)(gray|grey|red|green|blue|cyan|magenta|brown)")
PERSONS: Final = {"m": "male", "f": "female"}
DIRECTIONS: Final = frozenset(
    {"north", "south", "east", "west", "left", "right", "middle", "corner", "angle", "end"}
)
SIDED: Final = frozenset({"east", "west", "left", "right", "number", "menu", "command"})
"""Words of captions that a mirror image would make untrue."""


@dataclass(frozen=True)
class Caption:
    """What a picture shows (`subject`) and what kind of thing that is (`kind`), both in words; one may be empty."""

    subject: tuple[str, ...]
    kind: tuple[str, ...]

    def __str__(self) -> str:
        """The caption as text: "spectral ant, undead monster"."""
        return ", ".join(" ".join(words) for words in (self.subject, self.kind) if words)

    @property
    def words(self) -> frozenset[str]:
        """All the words it is made of."""
        return frozenset(self.subject + self.kind)

    @property
    def mirrors(self) -> bool:
        """Whether it is as true of the mirror image."""
        return not self.words & SIDED

    @property
    def theme(self) -> frozenset[str]:
        """What variants of one picture share: the subject, wherever it points; the kind where there is none."""
        return frozenset(self.subject or self.kind) - DIRECTIONS or frozenset(self.kind)


def caption(path: str) -> Caption:
    """Read a tile's path; the collection's release in front of it and the number behind its name say nothing."""
    *folders, name = path.removesuffix(".png").lower().split("/")
    kept = [each for each in folders if not re.fullmatch(r"nov-2015|ancient|oct-5-2010", each)]
    person = bool(kept[-1:] == ["base"])
    digits = kept[-1:] == ["numbers"]
    subject = _unique(_subject(name, person=person, digits=digits))
    kind = [word for each in reversed(kept) for word in FOLDERS.get(each, each.replace("_", " ")).split()]
    if person and "worn" in kind:
        kind.remove("worn")
    return Caption(subject, tuple(word for word in _unique(kind) if word not in subject))


def _subject(name: str, *, person: bool, digits: bool) -> list[str]:
    name = SHADES.sub(r"\1_\2", re.sub(r"'s(?![a-z])|'", "", name))
    found = re.findall(r"[a-z]+|\d+" if digits else r"[a-z]+", name)
    if person:
        found = [PERSONS.get(word, word) for word in found]
    known = (WORDS.get(word, word if len(word) > 1 or word.isdigit() else "") for word in found)
    words = [part for meaning in known for part in meaning.split()]
    # The mark of a tiny symbol stands in front of a file's name, but is read best behind what it shows.
    return [*(word for word in words if word != "symbol"), *(word for word in words if word == "symbol")]


def _unique(words: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
