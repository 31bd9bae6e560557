"""A made-up set of tldr pages to train on in tests: programs that copy, list and pack things."""

import json
from pathlib import Path

from model_store.zoo.tldr import DATA_FILE

VERBS = ("copy", "list", "pack", "count", "sort", "print")
THINGS = ("file", "folder", "line", "word")


def lines() -> list[dict[str, str]]:
    """Sixty programs of six examples each; the same every time."""
    return [
        {
            "command": f"tool{number}",
            "platform": ("common", "linux", "windows")[number % 3],
            "text": f"[{verb[0]}]{verb[1:]} the {thing} `{number}`",
            "code": f"tool{number} {{{{[-{verb[0]}|--{verb}]}}}} {{{{path/to/{thing}{number}}}}}",
        }
        for number in range(60)
        for verb, thing in zip(VERBS, (*THINGS, *THINGS[:2]), strict=True)
    ]


def folder(place: Path, written: list[dict[str, str]] | None = None) -> Path:
    """A data folder that holds the pages where the recipe looks for them."""
    target = place / DATA_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(each) + "\n" for each in written or lines()), encoding="utf-8")
    return place
