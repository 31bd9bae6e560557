"""The examples of tldr-pages: read, cleaned, split, and how a chat about one of them reads. Knows no model."""

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from model_store.zoo.pairs import END
from model_store.zoo.text import DataError

DATA_FILE: Final = Path("tldr", "nl2cmd.jsonl")
ROLES: Final = ("system", "user", "assistant")
SYSTEMS: Final = {
    "linux": "Linux",
    "osx": "macOS",
    "windows": "Windows",
    "android": "Android",
    "freebsd": "FreeBSD",
    "netbsd": "NetBSD",
    "openbsd": "OpenBSD",
    "sunos": "SunOS",
    "dos": "DOS",
    "cisco-ios": "Cisco IOS",
}
"""What a system message may say; commands found everywhere have none."""

LONGEST: Final = 240
"""Characters of the longest command to learn."""

COMMON: Final = 3
"""What more programs than this have an example for needs its program named."""


class Line(BaseModel):
    """One line of the data."""

    command: str
    platform: str
    text: str
    code: str


@dataclass(frozen=True)
class Example:
    """An instruction and the command that does it. `vague`: many programs have an example of these words."""

    page: tuple[str, str]
    instruction: str
    command: str
    vague: bool = False

    @property
    def program(self) -> str:
        """Name of the page: a program, perhaps with a subcommand."""
        return self.page[1]

    @property
    def system(self) -> str | None:
        """The operating system it is for, if not for any."""
        return SYSTEMS.get(self.page[0])


@dataclass(frozen=True)
class Corpus:
    """Examples to learn from; examples never trained on whose page is known; and examples of unknown pages."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    unknown: tuple[Example, ...]


def plain_instruction(text: str) -> str:
    """An instruction without the marks of mnemonic letters: `[c]reate` is `create`."""
    opening, within = r"\[([A-Za-z0-9]{1,4})\](?=[A-Za-z])", r"(?<=[A-Za-z])\[([A-Za-z0-9])\]"
    return re.sub(f"{opening}|{within}", r"\1\2", text).strip(" .:")


def plain_command(code: str) -> str:
    """A command to be read: placeholders without braces, options in their long form, the first of several values."""
    shown = re.sub(r"\{\{(.*?)\}\}(?!\})", lambda match: _value(match[1]), code)
    return shown.replace("\\{\\{", "{{").replace("\\}\\}", "}}").strip()


def _value(placeholder: str) -> str:
    options = re.fullmatch(r"\[([^|\]]+)\|([^\]]+)\]", placeholder)
    if options:
        return options[2].rsplit("|", 1)[-1]
    if not re.search(r"""["'`$(]| \| """, placeholder):
        placeholder = placeholder.split("|", 1)[0]
    return re.sub(r"[ ,]?\.\.\.$", "", placeholder)


def read_examples(data: Path) -> list[Example]:
    """Read `tldr/nl2cmd.jsonl` below `data`, each pair of instruction and command once.

    Left out: references to other pages, keys to press, and commands over LONGEST characters.
    Raises FileNotFoundError when there is none, DataError when a line is not what it should be.
    """
    adapter = TypeAdapter(Line)
    found: dict[tuple[str, str], Example] = {}
    programs: dict[str, set[str]] = defaultdict(set)
    with (data / DATA_FILE).open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = adapter.validate_json(raw)
            except ValidationError as error:
                raise DataError(f"{DATA_FILE}, line {number}: {error.errors()[0]['msg']}") from error
            if re.match(r"View documentation for the|\[Interactive\]", line.text):
                continue
            text, command = plain_instruction(line.text), plain_command(line.code)
            if text and 0 < len(command) <= LONGEST and "\n" not in command:
                found.setdefault((text, command), Example((line.platform, line.command), text, command))
                programs[text.lower()].add(line.command)
    return [
        Example(each.page, each.instruction, each.command, len(programs[each.instruction.lower()]) > COMMON)
        for each in found.values()
    ]


def read_corpus(data: Path, share: float = 0.03) -> Corpus:
    """Split what `read_examples` finds: `share` of the programs are unknown, and `share` of the others' examples held out."""
    examples = read_examples(data)
    chance = random.Random(0)
    programs = sorted({each.program for each in examples})
    away = set(chance.sample(programs, round(share * len(programs))))
    known = [each for each in examples if each.program not in away]
    apart = set(chance.sample(range(len(known)), round(share * len(known))))
    train = [each for place, each in enumerate(known) if place not in apart]
    if len(train) < 100 or not apart:
        raise DataError(f"{DATA_FILE} has {len(examples)} examples; that is too few to learn from")
    seen = {(each.instruction, each.command) for each in train}
    held_out = [known[place] for place in sorted(apart)]
    return Corpus(
        train=tuple(train),
        held_out=tuple(each for each in held_out if (each.instruction, each.command) not in seen),
        unknown=tuple(each for each in examples if each.program in away),
    )


def mark(role: str) -> str:
    """The mark that opens a message of `role`."""
    return f"<|{role}|>"


def asked(example: Example, *, named: bool, loosely: random.Random | None = None) -> str:
    """What a user says: the instruction, its program in front if `named`; `loosely`: perhaps small, without backquotes."""
    text = example.instruction
    if loosely and loosely.random() < 0.5 and text[1:2].islower():
        text = text[0].lower() + text[1:]
    if loosely and loosely.random() < 0.3:
        text = text.replace("`", "")
    return f"{example.program}: {text}" if named else text


def opening(system: str | None, user: str) -> str:
    """The text of a chat up to the assistant's first word."""
    told = f"{mark('system')}{system}{END}" if system else ""
    return f"{told}{mark('user')}{user}{END}{mark('assistant')}"
